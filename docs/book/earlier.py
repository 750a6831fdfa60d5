"""Folders of finished builds: what an earlier build wrote is replaced, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

DEMO = {"index.html", "style.css", "licences.txt", "page.js", "engine.js", "clips.js"}
LINK_CHECK = {"output.txt", "output.json"}
BOOK_LIST = ".dccrn-book"  # in a book: the names of its files, one a line
# of a book, beside its pages and folders of pages, which have a source in _sources/
BOOK_OTHERS = {
    ".buildinfo",
    "objects.inv",
    "searchindex.js",
    "genindex.html",
    "search.html",
    "py-modindex.html",
    "demo",
}


def require_replaceable(out: Path, is_build: Callable[[Path], bool]) -> None:
    """SystemExit unless ``out`` is missing, an empty folder, or an earlier build as ``is_build`` knows it."""
    if not out.exists() or (out.is_dir() and (not any(out.iterdir()) or is_build(out))):
        return
    raise SystemExit(
        f"error: {out} holds something else than an earlier build, and a build would delete it: "
        "give --out a new or an empty folder, or move away what lies there"
    )


def is_demo(folder: Path) -> bool:
    """Whether a folder holds the files of a built demo and nothing else."""
    return {path.name for path in folder.iterdir()} == DEMO


def list_book(folder: Path) -> None:
    """Write into a finished book the list that :func:`is_book` reads."""
    (folder / BOOK_LIST).write_text("\n".join(sorted(_files(folder))), encoding="utf-8")


def is_book(folder: Path) -> bool:
    """Whether a folder holds a built book, or what a check of its links left, and nothing else."""
    if (folder / BOOK_LIST).is_file():
        return _files(folder) <= {BOOK_LIST, *(folder / BOOK_LIST).read_text(encoding="utf-8").splitlines()}
    return _is_unlisted_book(folder)


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def _is_unlisted_book(folder: Path) -> bool:
    """Whether a folder looks like a book from before there was a list."""
    names = {path.name for path in folder.iterdir()}
    if names == LINK_CHECK:
        return True
    written = {path.name.split(".")[0] for path in (folder / "_sources").glob("*")}
    others = {name for name in names - BOOK_OTHERS if not name.startswith("_")}
    ours = (folder / "_sources/notebooks").is_dir() and {"searchindex.js", "objects.inv"} <= names
    return ours and {name.removesuffix(".html") for name in others} <= written
