"""A committed lesson as its rules read it: cells, headings, links, prose. Nothing is executed."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat


@dataclass(frozen=True)
class Lesson:
    """A notebook and its place: ``path`` may not exist, ``course`` holds the file names of all lessons in order."""

    path: Path
    notebook: nbformat.NotebookNode
    course: tuple[str, ...]

    @classmethod
    def read(cls, path: str | os.PathLike) -> Lesson:
        """The notebook at ``path`` among the numbered notebooks of its folder."""
        path = Path(path)
        course = tuple(p.name for p in sorted(path.parent.glob("[0-9]*.ipynb")))
        return cls(path, nbformat.read(path, as_version=4), course)

    def neighbour(self, step: int) -> str | None:
        """File name of the lesson ``step`` places on; None at either end."""
        place = self.course.index(self.path.name) + step
        return self.course[place] if 0 <= place < len(self.course) else None

    @property
    def code(self) -> list[tuple[int, nbformat.NotebookNode]]:
        """(index, cell) of the code cells."""
        return [(i, c) for i, c in enumerate(self.notebook.cells) if c.cell_type == "code"]

    @property
    def text(self) -> list[tuple[int, str]]:
        """(index, source) of the markdown cells."""
        return [(i, c.source) for i, c in enumerate(self.notebook.cells) if c.cell_type == "markdown"]

    def headings(self) -> list[tuple[int, str]]:
        """(index of its cell, words) of every heading, in order."""
        return [(i, h.strip()) for i, s in self.text for h in re.findall(r"^#+ +(.+)$", prose(s, code=False), re.M)]

    def find_heading(self, words: str) -> int | None:
        """Index of the first cell with a heading that says ``words``, numbered or not."""
        return next((i for i, h in self.headings() if re.sub(r"^\d+\. ", "", h).lower() == words.lower()), None)

    def outputs(self) -> Iterator[tuple[int, nbformat.NotebookNode]]:
        """(index of its cell, output) of every output."""
        for i, cell in self.code:
            for output in cell.outputs:
                yield i, output


def prose(source: str, code: bool = True) -> str:
    """Markdown without fenced code, and with ``code`` also without inline code, formulas and link targets."""
    source = re.sub(r"^```.*?^```", "", source, flags=re.M | re.S)
    return re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$|`[^`]*`|\]\([^)]*\)", " ", source, flags=re.S) if code else source


def links_of(source: str) -> list[str]:
    """Targets of links and images, in markdown and HTML."""
    source = re.sub(r"`[^`]*`", "", prose(source, code=False))
    found = re.finditer(r"\]\(([^)\s]+)(?:\s[^)]*)?\)|\b(?:src|href)=[\"']([^\"']+)[\"']", source)
    return [m[1] or m[2] for m in found]


def tree_of(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None
