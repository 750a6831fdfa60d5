"""Build the book: ``python docs/book/make.py --out build/book`` in the project's root, then open build/book/index.html.

Needs the extra ``book``. Notebooks are not executed, and the network is not used.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import sources  # noqa: E402


def build(out: Path, demo: Path | None = None, builder: str = "html") -> int:
    """Lay out the sources beside ``out`` and let sphinx build; a warning fails.

    Args:
        out: folder of the finished pages.
        demo: folder of the finished demo of the browser, copied to ``demo/`` if it is there.
        builder: of sphinx: "html", or "linkcheck" to ask for every external address.

    Returns:
        The exit code of sphinx: 0 if all went well.
    """
    from sphinx.cmd.build import main as sphinx

    laid_out = sources.lay_out(ROOT, out.with_name(f"{out.name}-sources"))
    with_demo = []
    if demo is not None and (demo / "index.html").is_file():
        extra = out.with_name(f"{out.name}-extra")
        shutil.rmtree(extra, ignore_errors=True)
        shutil.copytree(demo, extra / "demo")
        with_demo = ["-t", "demo", "-D", f"html_extra_path={extra}"]
    trees = str(out.with_name(f"{out.name}-trees"))
    arguments = ["-b", builder, "-W", "--keep-going", "-q", *with_demo, "-c", str(HERE), "-d", trees]
    return sphinx([*arguments, str(laid_out), str(out)])


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book from the committed notebooks and documents.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book", help="folder of the finished pages")
    parser.add_argument("--demo", type=Path, default=ROOT / "build" / "demo", help="finished demo, taken if it is there")
    parser.add_argument("--builder", default="html", choices=("html", "linkcheck"), help="linkcheck asks the network")
    options = parser.parse_args()
    code = build(options.out.resolve(), options.demo, options.builder)
    if code == 0 and options.builder == "html":
        print(f"open {options.out / 'index.html'}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
