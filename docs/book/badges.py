"""Write the badges of README.md for the address of a repository: ``python docs/book/badges.py owner/name``.

Without an address it takes that of the git remote ``origin`` or of the badges that stand there. The badges are the state of
CI, Colab and Binder with the first lesson, the site, and the licence.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import sources  # noqa: E402

from dccrn_lib.runtime.files import atomic_path  # noqa: E402

BLOCK = re.compile(r"(?<=<!-- badges -->\n).*?(?=<!-- /badges -->)", re.DOTALL)
FIRST_LESSON = "notebooks/00_start_here.ipynb"


def badges(repository: str) -> str:
    """Markdown of the badges.

    Args:
        repository: "owner/name" on GitHub.
    """
    owner, name = repository.split("/")
    actions = f"https://github.com/{repository}/actions/workflows/ci.yml"
    links = {
        "tests": (f"{actions}/badge.svg?branch=main", actions),
        "open in Colab": (
            "https://colab.research.google.com/assets/colab-badge.svg",
            f"https://colab.research.google.com/github/{repository}/blob/main/{FIRST_LESSON}",
        ),
        "open in Binder": (
            "https://mybinder.org/badge_logo.svg",
            f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/{FIRST_LESSON}",
        ),
        "the book": ("https://img.shields.io/badge/book-online-blue", f"https://{owner.lower()}.github.io/{name}/"),
        "licence Apache 2.0": ("https://img.shields.io/badge/licence-Apache_2.0-green", "LICENSE"),
    }
    return "\n".join(f"[![{text}]({image})]({target})" for text, (image, target) in links.items()) + "\n"


def write(readme: Path, repository: str) -> None:
    """Replace what stands between the marks ``<!-- badges -->`` and ``<!-- /badges -->``.

    Raises:
        SystemExit: the file has no such marks, or this is not the address of a repository.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SystemExit(f"error: {repository!r} is no address of a repository; it looks like owner/name")
    text = readme.read_text(encoding="utf-8")
    if len(BLOCK.findall(text)) != 1:
        raise SystemExit(f"error: {readme} needs the two lines <!-- badges --> and <!-- /badges --> once")
    with atomic_path(readme) as draft:
        draft.write_text(BLOCK.sub(lambda _: badges(repository), text), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the badges of README.md for the address of a repository.")
    parser.add_argument("repository", nargs="?", help="owner/name on GitHub; that of the remote origin when not given")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="file to write into")
    options = parser.parse_args(arguments)
    repository = options.repository or sources.repository_address(ROOT)
    if repository is None:
        raise SystemExit("error: the address of the repository is not known; give it: owner/name")
    write(options.readme, repository)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
