"""Grain, sizes, links, tables, figures and sound of a lesson."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import nbformat
import soundfile

from dccrn_lib.lessons.lesson import MAX_SECONDS
from tests.contract.reading import Lesson, links_of, prose

CELLS = (60, 135)  # of a lesson
CODE_LINES = 40  # of a cell
WORDS_PER_LINE = (6.0, 11.0)  # of text per line of code
PLAYERS = 6  # audio players
NOTEBOOK_BYTES = 2_000_000
OUTPUT_BYTES = 280_000  # a picture of 200 kB in base64


def grain(lesson: Lesson) -> list[str]:
    """60 to 135 cells, code cells of at most 40 lines, and enough words for each line of code."""
    found = []
    count = len(lesson.notebook.cells)
    if not CELLS[0] <= count <= CELLS[1]:
        found.append(f"{count} cells; {CELLS[0]} to {CELLS[1]} are wanted")
    for i, cell in lesson.code:
        if len(cell.source.splitlines()) > CODE_LINES:
            found.append(f"cell {i}: {len(cell.source.splitlines())} lines of code, at most {CODE_LINES}")
    ratio = words_per_line(lesson)
    if not WORDS_PER_LINE[0] <= ratio <= WORDS_PER_LINE[1]:
        low, high = WORDS_PER_LINE
        found.append(f"{ratio:.1f} words of text for a line of code; {low:g} to {high:g} are wanted")
    return found


def words_per_line(lesson: Lesson) -> float:
    """Words of text for each line of code that is neither empty nor a comment; formulas and code are no words."""
    words = sum(len(re.findall(r"[^\W\d_][\w'-]*", prose(source))) for _, source in lesson.text)
    lines = [line.strip() for _, cell in lesson.code for line in cell.source.splitlines()]
    return words / max(sum(bool(line) and not line.startswith("#") for line in lines), 1)


def sizes(lesson: Lesson) -> list[str]:
    """Below 2 MB in all, and no output above 280 kB, so that a code host renders it."""
    found = []
    size = len(nbformat.writes(lesson.notebook).encode())
    if size >= NOTEBOOK_BYTES:
        found.append(f"{size:,} bytes, at most {NOTEBOOK_BYTES:,}")
    for i, output in lesson.outputs():
        if (size := len(json.dumps(output).encode())) > OUTPUT_BYTES:
            found.append(f"cell {i}: an output of {size:,} bytes, at most {OUTPUT_BYTES:,}")
    return found


def links(lesson: Lesson) -> list[str]:
    """Every relative link and picture leads to a file, and to a heading where it names one."""
    found = []
    for i, source in lesson.text:
        for link in links_of(source):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            target = lesson.path.parent / name if name else lesson.path
            if name and not target.exists():
                found.append(f"cell {i}: {link} leads nowhere")
            elif anchor and anchor not in _anchors(target, lesson):
                found.append(f"cell {i}: {link} names no heading")
    return found


def _anchors(path: Path, lesson: Lesson) -> set[str]:
    """Anchors of a document's headings, as Jupyter and as code hosts make them."""
    if path == lesson.path:
        headings = [h for _, h in lesson.headings()]
    elif path.suffix == ".ipynb":
        headings = [h for _, h in Lesson.read(path).headings()]
    else:
        headings = re.findall(r"^#+ +(.+)$", path.read_text(encoding="utf-8"), re.M)
    slugs = (re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings)
    return {h.replace(" ", "-") for h in headings} | set(slugs)


def symbols(lesson: Lesson) -> list[str]:
    """One table of symbols."""
    tables = [i for i, source in lesson.text if re.search(r"^\| *symbol *\|.*\n\|[-| :]+\|$", source, re.M)]
    return [] if len(tables) == 1 else [f"{len(tables)} tables of symbols (in cells {tables}); one is wanted"]


def figures(lesson: Lesson) -> list[str]:
    """Below each figure stands text that says what to see; one cell that prints its message may come between."""
    found = []
    cells = lesson.notebook.cells
    drawn = {i for i, output in lesson.outputs() if {"image/png", "image/svg+xml"} & set(output.get("data", {}))}
    for i in sorted(drawn):
        after = cells[i + 1 : i + 3]
        printed = len(after) == 2 and after[0].cell_type == "code" and i + 1 not in drawn
        below = after[1] if printed else after[0] if after else None
        if below is None or below.cell_type != "markdown" or below.source.lstrip().startswith("#"):
            found.append(f"cell {i}: no text below the figure says what to see")
    return found


def audio(lesson: Lesson) -> list[str]:
    """At most 6 players of at most 4 s each, all sound inside the notebook."""
    found, count = [], 0
    for i, output in lesson.outputs():
        html = output.get("data", {}).get("text/html", "")
        count += html.count("<audio")
        sounds = re.findall(r"data:audio/[\w.+-]+;base64,([A-Za-z0-9+/=]+)", html)
        if len(sounds) != html.count("<audio"):
            found.append(f"cell {i}: a player's sound is not embedded")
        for sound in sounds:
            seconds = soundfile.info(io.BytesIO(base64.b64decode(sound))).duration
            if seconds > MAX_SECONDS:
                found.append(f"cell {i}: a player of {seconds:.1f} s, at most {MAX_SECONDS:g} s")
    if count > PLAYERS:
        found.append(f"{count} audio players, at most {PLAYERS}")
    return found
