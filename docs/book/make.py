"""Build the book: ``python docs/book/make.py --out build/book`` in the project's root, then open build/book/index.html.

Needs the extra ``book``. Notebooks are not executed, and the network is not used.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import earlier  # noqa: E402
import sources  # noqa: E402


def build(out: Path, demo: Path | None = None, builder: str = "html") -> int:
    """Lay out the sources in a temporary folder and let sphinx build from there; a warning fails.

    Args:
        out: folder of the finished pages; an earlier build there is replaced, anything else refused.
        demo: folder of the finished demo of the browser, copied to ``demo/`` if it is there.
        builder: of sphinx: "html", or "linkcheck" to ask for every external address.

    Returns:
        The exit code of sphinx: 0 if all went well.
    """
    earlier.require_replaceable(out, earlier.is_book)
    from sphinx.cmd.build import main as sphinx

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        work = Path(folder)
        laid_out = sources.lay_out(ROOT, work / "sources")
        with_demo = []
        if demo is not None and (demo / "index.html").is_file():
            shutil.copytree(demo, work / "extra" / "demo")
            with_demo = ["-t", "demo", "-D", f"html_extra_path={work / 'extra'}"]
        arguments = ["-b", builder, "-W", "--keep-going", "-q", *with_demo, "-c", str(HERE), "-d", str(work / "trees")]
        code = sphinx([*arguments, str(laid_out), str(work / "pages")])
        if not (work / "pages" / ("index.html" if builder == "html" else "output.txt")).is_file():
            return code or 1  # sphinx broke off: an earlier build stays
        for notebook in (work / "pages" / "_sources").rglob(
            "*.ipynb"
        ):  # what a reader downloads is the lesson as committed
            shutil.copyfile(ROOT / notebook.relative_to(work / "pages" / "_sources"), notebook)
        earlier.list_book(work / "pages")
        if out.exists():
            shutil.rmtree(out)
        shutil.move(work / "pages", out)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the book from the committed notebooks and documents.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book", help="folder of the finished pages")
    parser.add_argument(
        "--demo", type=Path, default=ROOT / "build" / "demo", help="finished demo, taken if it is there"
    )
    parser.add_argument("--builder", default="html", choices=("html", "linkcheck"), help="linkcheck asks the network")
    options = parser.parse_args()
    code = build(options.out.resolve(), options.demo, options.builder)
    if code == 0 and options.builder == "html":
        print(f"open {options.out / 'index.html'}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
