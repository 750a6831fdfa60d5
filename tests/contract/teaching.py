"""What a lesson does for its reader: an opening question, marked sections, a recap, a quiz, where to read on."""

from __future__ import annotations

import re

from tests.contract.reading import Lesson, links_of

MARKS = ("core", "deeper", "research")
CORE_CELLS = (50, 70)  # on the core path, without the exercises
TERMS = 5  # of a recap, at least
QUESTIONS = 3  # of a quiz
_MARK = re.compile(r" · (\w+)$")


def question(lesson: Lesson) -> list[str]:
    """The first cell asks the question of the lesson, in bold."""
    asked = re.search(r"\*\*[^*]+\?\*\*", lesson.text[0][1]) if lesson.text else None
    return [] if asked else ["cell 0: no opening question in bold"]


def marks(lesson: Lesson) -> list[str]:
    """Every numbered section says whether it is core, deeper or research; parts of a section may."""
    found = []
    for i, level, heading in _headings(lesson):
        mark = _MARK.search(heading)
        if level == 2 and re.match(r"\d+\. ", heading) and not mark:
            found.append(f"cell {i}: section {heading!r} is not marked {', '.join(MARKS)}")
        if mark and mark[1] not in MARKS:
            found.append(f"cell {i}: {mark[1]!r} is none of {', '.join(MARKS)}")
    return found


def recap(lesson: Lesson) -> list[str]:
    """A table of at least five terms with their meaning, and a quiz of three folded answers."""
    found = []
    if len(recap_terms(lesson)) < TERMS:
        found.append(f"a recap of {len(recap_terms(lesson))} terms; at least {TERMS} in one table are wanted")
    place = lesson.find_heading("Quiz") or lesson.find_heading("Recap and quiz")
    answers = 0
    for source in (source for i, source in lesson.text if i == place):
        answers = len(re.findall(r"<details><summary>Answer</summary>\n+\S[^<]*</details>", source))
    if answers != QUESTIONS:
        found.append(f"{answers} folded answers below 'Quiz'; {QUESTIONS} are wanted")
    return found


def pages(lesson: Lesson) -> list[str]:
    """Links to the glossary, the notation and the solutions, and at least two to read on."""
    links = [link.partition("#")[0] for _, source in lesson.text for link in links_of(source)]
    wanted = ("../docs/glossary.md", "../docs/notation.md", "solutions.ipynb")
    found = [f"no link to {page}" for page in wanted if page not in links]
    place = lesson.find_heading("Further reading")
    sources = [s.split("## Further reading", 1)[1] for i, s in lesson.text if i == place]
    if sum(link.startswith("http") for source in sources for link in links_of(source)) < 2:
        found.append("fewer than two links below 'Further reading'")
    return found


def path_length(lesson: Lesson) -> list[str]:
    """50 to 70 cells on the core path."""
    count = len(core_cells(lesson))
    low, high = CORE_CELLS
    return [] if low <= count <= high else [f"{count} cells on the core path; {low} to {high} are wanted"]


def core_cells(lesson: Lesson) -> list[int]:
    """Cells before the exercises that a first reading takes: all but those below a heading marked otherwise."""
    end = lesson.find_heading("Exercises")
    headings = {i: (level, heading) for i, level, heading in _headings(lesson)}
    section = part = "core"
    chosen = []
    for i in range(end if end is not None else len(lesson.notebook.cells)):
        if i in headings:
            level, heading = headings[i]
            mark = _MARK.search(heading)
            if level <= 2:
                section = mark[1] if mark else "core"
                part = section
            else:
                part = mark[1] if mark else section
        if part == "core":
            chosen.append(i)
    return chosen


def recap_terms(lesson: Lesson) -> list[str]:
    """First column of the lesson's table of terms."""
    for _, source in lesson.text:
        table = re.search(r"^\| term \| meaning \|\n\|[-| ]+\|\n((?:\|.*(?:\n|$))+)", source, re.M)
        if table:
            return [row.split("|")[1].strip() for row in table[1].strip().splitlines()]
    return []


def _headings(lesson: Lesson) -> list[tuple[int, int, str]]:
    """(index of its cell, number of hashes, words) of every heading, fenced code left out."""
    return [
        (i, len(hashes), words.strip())
        for i, source in lesson.text
        for hashes, words in re.findall(r"^(#+) +(.+)$", re.sub(r"^```.*?^```", "", source, flags=re.M | re.S), re.M)
    ]
