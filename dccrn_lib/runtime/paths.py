"""Where things lie. Every path hangs off the project root, so that notebooks, tests and the command line agree.

The root is the folder that holds ``dccrn_lib`` (a clone with an editable install), unless the environment
variable ``DCCRN_ROOT`` names another one. An installed wheel has no such folder: it carries a few files below
``dccrn_lib/shipped/``, and what is written goes to the folder one is in.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Environment variables that move folders.
MOVED = ("DCCRN_ROOT", "DCCRN_GENERATED")

#: How functions take the place of a file or folder.
PathLike = str | os.PathLike

_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = _PACKAGE / "shipped"  # only in a wheel


def project_root() -> Path:
    """Folder that holds notebooks/, data/, weights/ and results/; without a clone, the folder one is in."""
    return Path(os.environ.get("DCCRN_ROOT") or (Path.cwd() if _SHIPPED.is_dir() else _PACKAGE.parent))


def _shipped_or(name: str) -> Path:
    """The wheel's own copy of a folder of the project, the project's where there is one."""
    own = _SHIPPED / name
    return own if own.is_dir() and not os.environ.get("DCCRN_ROOT") else project_root() / name


def notebooks_dir() -> Path:
    """The lessons."""
    return project_root() / "notebooks"


def data_dir() -> Path:
    """Sentences, recipes and demo clips that are part of the project."""
    return _shipped_or("data")


def generated_dir() -> Path:
    """Generated corpora (git-ignored); the environment variable ``DCCRN_GENERATED`` moves it."""
    return Path(os.environ.get("DCCRN_GENERATED") or project_root() / "data" / "generated")


def weights_dir() -> Path:
    """Shipped checkpoints."""
    return _shipped_or("weights")


def results_dir() -> Path:
    """JSON behind every published number."""
    return project_root() / "results"


def runs_dir() -> Path:
    """Output of notebook and training runs (git-ignored)."""
    return project_root() / "runs"


def joined_paths(text: PathLike) -> list[str]:
    """The paths of a text that joins them by commas, blanks around them or not; [] for "".

    Commas within the name of a file or of a folder above it belong to it where such a file exists.

    >>> joined_paths("a.jsonl, b.jsonl")
    ['a.jsonl', 'b.jsonl']
    """
    parts, paths = str(text).split(","), []
    while parts:
        ends = range(len(parts), 0, -1)
        end = next((n for n in ends if n > 1 and os.path.isfile(",".join(parts[:n]).strip())), 1)
        paths.append(",".join(parts[:end]).strip())
        parts = parts[end:]
    return [path for path in paths if path]


def install_command(extra: str) -> str:
    """How to install an extra from where one is: of a clone by its folder, of an installed wheel by the project's name."""
    if _SHIPPED.is_dir():
        return f"python -m pip install 'dccrn-lib[{extra}]'"
    clone = _PACKAGE.parent
    return f"python -m pip install -e '{'.' if clone == Path.cwd() else clone}[{extra}]'"


def expanded(path: str) -> Path:
    """A path with ``~`` and ``~name`` as the home folder where there is one of that name; else ``~`` is a letter.

    >>> expanded("~nobody-of-this-name/x").parts[0]
    '~nobody-of-this-name'
    """
    return Path(os.path.expanduser(path))
