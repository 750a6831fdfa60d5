"""The contract of a lesson: the committed ones keep it, and each rule fails on a notebook that breaks it."""

from __future__ import annotations

import ast
import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile

from dccrn_lib.runtime import paths
from tests.contract import RULES, TASTE, Lesson, violations, words_per_line
from tests.contract.framing import stated_seconds

v4 = nbformat.v4
LESSONS = sorted(paths.notebooks_dir().glob("[0-9]*.ipynb"))


@cache
def committed(path: Path) -> Lesson:
    return Lesson.read(path)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_committed_lesson_keeps(path: Path, rule: str):
    assert RULES[rule](committed(path)) == []


def test_stated_times_are_read(lesson: Lesson):
    assert stated_seconds(lesson) == (60, 60)
    cell = lesson.notebook.cells[NEED]
    for stated, wanted in (("6 to 17 minutes", (360, 1020)), ("25 s", (25, 25)), ("a while", None)):
        cell.source = f"## You need\n\nAbout {stated} on a 2-core CPU."
        assert stated_seconds(lesson) == wanted


# ---- a lesson that keeps every rule, in a course of three


def sound(seconds: float) -> str:
    data = io.BytesIO()
    soundfile.write(data, np.zeros(int(16000 * seconds), np.float32), 16000, format="OGG", subtype="VORBIS")
    return f'<audio controls src="data:audio/ogg;base64,{base64.b64encode(data.getvalue()).decode()}"></audio>'


def printed(text: str) -> nbformat.NotebookNode:
    return v4.new_output("stream", name="stdout", text=text)


def shown(**data: str) -> nbformat.NotebookNode:
    return v4.new_output(
        "execute_result", data={key.replace("_", "/").replace("svg", "svg+xml"): value for key, value in data.items()}
    )


def code(source: str, *outputs: nbformat.NotebookNode, **metadata) -> nbformat.NotebookNode:
    return v4.new_code_cell(source, outputs=list(outputs), metadata=metadata)


def number_cells(cells: list) -> None:
    for number, cell in enumerate((c for c in cells if c.cell_type == "code"), 1):
        cell.execution_count = number


text = v4.new_markdown_cell
TITLE, NEED, BOOTSTRAP, PARAMETERS, VERSIONS, SYMBOLS = range(6)
CHECKED, FIGURE, SOUND, SAW, EXERCISE = 7, 20, 24, -8, -5
SECTION = 8
TERMS = "| term | meaning |\n|---|---|\n" + "".join(f"| {word} | a word |\n" for word in ("a", "b", "c", "d", "e"))
QUIZ = "### Quiz\n\n" + "<details><summary>Answer</summary>\n\nYes.\n\n</details>\n" * 3
READING = "## Further reading\n\n- [one](https://example.org/1)\n- [two](https://example.org/2)"


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    """01 of a course of three; cells in the order of the constants above."""
    grader = "from dccrn_lib.lessons.start.exercises import check_snr\n\ncheck_snr(None)"
    guard = "if find_spec('dccrn_lib') is None:\n    raise OSError('pip install it')"
    cells = [
        text("# 01. The middle\n\n[Back](00_first.ipynb) to the first.\n\n**Is it flat?**"),
        text(
            "## You will learn\n\n- to **see** one thing,\n- to **hear** another,\n- to **count** a third.\n\n"
            "## You need\n\n[00](00_first.ipynb). About 1 minute on a 2-core CPU, the same on a GPU. "
            "Disk: none. Network: none. [Words](../docs/glossary.md), [letters](../docs/notation.md)."
        ),
        code(f"from importlib.util import find_spec\n\n{guard}"),
        code('profile: str = "quick"  # size\nseed: int = 0  # of all that is random', tags=["parameters"]),
        code(
            "from dccrn_lib.lessons import lesson\n\nlesson.start(seed)", printed("Python 3.11, torch 2.11.0, seed 0\n")
        ),
        text("| symbol | meaning |\n|---|---|\n| $x$ | a sound |"),
    ]
    for _ in range(28):
        cells += [text("Seven words stand here for every line."), code("print(1)", printed("1\n"))]
    cells[SECTION].source = "## 1. A section · core\n\n" + cells[SECTION].source
    cells[SECTION + 2].source = "### A detail · deeper\n\n" + cells[SECTION + 2].source
    cells[SECTION + 4].source = "## 2. Another · core\n\n" + cells[SECTION + 4].source
    for i in range(CHECKED, CHECKED + 10, 2):
        cells[i].source = "# NBVAL_CHECK_OUTPUT\n" + cells[i].source
    cells[FIGURE:FIGURE] = [
        code("draw()", shown(image_png="iVBORw0KGgo=")),
        text("See that it is flat, and why it is."),
    ]
    cells[SOUND:SOUND] = [code("play()", shown(text_html=sound(0.1))), text("Hear that there is nothing to be heard.")]
    cells += [
        text(f"## What we saw\n\nA picture that is flat, and a sound that is silent.\n\n{TERMS}\n{QUIZ}"),
        text(f"## Where we differ from the paper, and what is not known to us\n\nNowhere.\n\n{READING}"),
        text(
            "## Exercises\n\n[Answers](solutions.ipynb). **1.** Write the ratio of the energies of two signals in decibels."
        ),
        code(grader, shown(text_plain="Not yet: the function returns None.")),
        text("**2.** The same once more."),
        code(grader, shown(text_plain="Not yet: the function returns None.")),
        text("Nothing more to do here, so take a break."),
        text("## Next\n\n[The last](02_last.ipynb)."),
    ]
    number_cells(cells)
    folder, documents = tmp_path / "notebooks", tmp_path / "docs"
    folder.mkdir()
    documents.mkdir()
    for name in ("00_first.ipynb", "01_middle.ipynb", "02_last.ipynb", "solutions.ipynb"):
        (folder / name).touch()
    for name in ("glossary.md", "notation.md"):
        (documents / name).touch()
    (folder / "notes.md").write_text("# Notes\n\n## On time & place\n")
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    course = ("00_first.ipynb", "01_middle.ipynb", "02_last.ipynb")
    return Lesson(folder / course[1], v4.new_notebook(cells=cells, metadata=metadata), course)


def test_a_good_lesson_keeps_every_rule(lesson: Lesson):
    assert violations(lesson) == {}


# ---- and the ways to break it


def change(index: int, old: str, new: str, count: int = -1) -> Callable[[list], None]:
    def do(cells: list) -> None:
        assert old in cells[index].source
        cells[index].source = cells[index].source.replace(old, new, count)

    return do


def output(index: int, *outputs: nbformat.NotebookNode) -> Callable[[list], None]:
    return lambda cells: setattr(cells[index], "outputs", list(outputs))


def swap(one: int, other: int) -> Callable[[list], None]:
    def do(cells: list) -> None:
        cells[one], cells[other] = cells[other], cells[one]
        number_cells(cells)

    return do


def cut(first: int, last: int) -> Callable[[list], None]:
    def do(cells: list) -> None:
        del cells[first:last]
        number_cells(cells)

    return do


def two_figures_in_a_row(cells: list) -> None:
    swap(32, 33)(cells)
    cells[31].outputs = cells[32].outputs = [shown(image_png="iVBORw0KGgo=")]


def meta(index: int, **values) -> Callable[[list], None]:
    return lambda cells: cells[index].metadata.update(values)


HOME = "/home" + "/someone/x.wav"
BREAKS = [
    ("opening", change(TITLE, "# 01. ", "# 02. "), "cell 0: the title"),
    ("opening", change(NEED, "## You will learn", "## Aims"), "'You will learn'"),
    ("opening", change(NEED, "- to **count** a third.", ""), "2 things to learn"),
    ("opening", change(NEED, "to **see**", "the picture"), "verb in bold"),
    ("opening", change(NEED, "About 1 minute on a 2-core CPU,", ""), "cell 1: 'You need' does not say the time"),
    ("opening", change(NEED, "the same on a GPU", ""), "GPU"),
    ("opening", change(NEED, "Disk: none.", ""), "disk"),
    ("opening", change(NEED, "Network: none", "Network: a lot"), "network"),
    ("opening", change(NEED, "[00](00_first.ipynb).", "Nothing."), "links no earlier notebook"),
    ("start", meta(PARAMETERS, tags=[]), "parameters cell"),
    ("start", change(PARAMETERS, "  # size", ""), "no help"),
    ("start", change(PARAMETERS, "profile", "size"), "first parameters"),
    ("start", change(VERSIONS, "lesson.start(seed)", "lesson"), "lesson.start"),
    ("start", output(VERSIONS), "versions and seed are not printed"),
    ("start", swap(PARAMETERS, VERSIONS), "in this order"),
    ("start", change(BOOTSTRAP, "raise OSError('pip install it')", "print('pip install it')"), "but the bootstrap"),
    ("start", change(BOOTSTRAP, "if find_spec('dccrn_lib') is None", "if True"), "but the bootstrap"),
    ("opening", swap(NEED, PARAMETERS), "in this order"),
    ("closing", change(SAW, "What we saw", "Summary"), "no '## What we saw'"),
    ("closing", swap(SAW, SAW + 1), "closing's order"),
    (
        "closing",
        change(TITLE, "[Back](00_first.ipynb)", "[On](02_last.ipynb)"),
        "first link goes back to 00_first.ipynb",
    ),
    ("closing", change(-1, "02_last", "00_first"), "last link goes on to 02_last.ipynb"),
    ("grain", cut(30, 46), "cells; 60 to 135"),
    ("grain", change(CHECKED, "print(1)", "print(1)\n" + "\n".join("#" for _ in range(40))), "cell 7: 42 lines"),
    ("grain", change(CHECKED, "print(1)", "\n".join("print(1)" for _ in range(35))), "words of text"),
    ("sizes", output(31, *[printed("a" * 270_000 + "\n") for _ in range(8)]), "at most 2,000,000"),
    ("sizes", output(FIGURE, shown(image_png="A" * 280_000)), "cell 20: an output of"),
    ("links", change(SAW, "A picture", "A [picture](missing.ipynb)"), "missing.ipynb leads nowhere"),
    ("links", change(SAW, "A picture", '<img src="missing.png">'), "missing.png leads nowhere"),
    ("links", change(SAW, "A picture", "A [picture](notes.md#elsewhere)"), "#elsewhere names no heading"),
    ("links", change(SAW, "A picture", "A [picture](#Elsewhere)"), "#Elsewhere names no heading"),
    ("symbols", change(SYMBOLS, "symbol", "word"), "0 tables"),
    ("symbols", lambda cells: change(SAW, "A picture", cells[SYMBOLS].source + "\n\nA picture")(cells), "2 tables"),
    ("figures", change(FIGURE + 1, "See", "## See"), "cell 20"),
    ("figures", two_figures_in_a_row, "cell 31"),
    (
        "figures",
        lambda cells: (output(FIGURE, shown(image_svg="<svg/>"))(cells), change(FIGURE + 1, "See", "## See")(cells)),
        "cell 20",
    ),
    ("audio", output(SOUND, shown(text_html=sound(4.1))), "cell 24: a player of 4.1 s"),
    ("audio", output(SOUND, *[shown(text_html=sound(0.1)) for _ in range(7)]), "7 audio players"),
    ("audio", output(SOUND, shown(text_html='<audio src="x.wav"></audio>')), "not embedded"),
    ("question", change(TITLE, "**Is it flat?**", "It is flat."), "no opening question"),
    ("marks", change(SECTION, " · core", ""), "section '1. A section' is not marked"),
    ("marks", change(SECTION + 2, "deeper", "hard"), "'hard' is none of"),
    ("recap", change(SAW, "| e | a word |\n", ""), "a recap of 4 terms"),
    ("recap", change(SAW, "### Quiz", "### Riddles"), "0 folded answers"),
    ("recap", change(SAW, "\n\nYes.", "", count=1), "2 folded answers"),
    ("pages", change(NEED, "../docs/glossary.md", "../docs/notation.md"), "no link to ../docs/glossary.md"),
    ("pages", change(NEED, "../docs/notation.md", "../docs/glossary.md"), "no link to ../docs/notation.md"),
    ("pages", change(SAW + 2, "[Answers](solutions.ipynb). ", ""), "no link to solutions.ipynb"),
    ("pages", change(SAW + 1, "- [two](https://example.org/2)", ""), "fewer than two links"),
    ("path_length", change(SECTION + 4, " · core", " · deeper"), "cells on the core path; 50 to 70"),
    ("executed", lambda cells: setattr(cells[CHECKED], "execution_count", None), "cell 7: not executed"),
    ("executed", lambda cells: setattr(cells[CHECKED], "execution_count", 9), "cell 7: executed as number 9"),
    ("executed", lambda cells: cells[CHECKED].outputs.append(v4.new_output("error", ename="E", evalue="")), "error"),
    ("executed", lambda cells: cells.append(code("")), "an empty code cell"),
    ("clean", lambda cells: cells[11].outputs.append(v4.new_output("stream", name="stderr", text="x")), "cell 11"),
    ("clean", output(31, printed(f"{HOME}\n")), "which differs between machines"),
    ("clean", output(31, printed("<object at 0x7f0011223344>\n")), "which differs between machines"),
    ("clean", meta(CHECKED, execution={"iopub.execute_input": "12:00"}), "cell 7: metadata"),
    (
        "clean",
        output(31, v4.new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}})),
        "widget",
    ),
    ("exceptions", change(CHECKED, "print(1)", "try:\n    print(1)\nexcept ValueError:\n    pass"), "its line 4"),
    ("exceptions", change(CHECKED, "print(1)", "try:\n    print(1)\nexcept Exception:\n    x = 1"), "swallowed"),
    ("exceptions", change(CHECKED, "print(1)", "try:\n    print(1)\nexcept:\n    x = 1"), "swallowed"),
    ("exceptions", change(CHECKED, "print(1)", "with contextlib.suppress(OSError):\n    print(1)"), "suppress"),
    ("exceptions", change(CHECKED, "print(1)", "%timeit print(1)"), "not plain Python"),
    ("checked", change(CHECKED, "# NBVAL_CHECK_OUTPUT\n", ""), "4 cells with NBVAL_CHECK_OUTPUT"),
    ("checked", output(CHECKED), "checks nothing"),
    ("exercises", cut(EXERCISE, EXERCISE + 2), "1 exercises; 2 to 4"),
    ("exercises", change(EXERCISE, "check_snr(None)", "check_sn(None)"), "no grader check_sn"),
    ("exercises", output(EXERCISE, shown(text_plain="Right: this is it.")), "'Not yet: ...'"),
]


@pytest.mark.parametrize(
    ("rule", "break_it", "words"), BREAKS, ids=[f"{rule}-{words[:30]}" for rule, _, words in BREAKS]
)
def test_a_broken_lesson_is_told_what_is_wrong(lesson: Lesson, rule: str, break_it: Callable[[list], None], words: str):
    break_it(lesson.notebook.cells)
    found = violations(lesson)
    assert list(found) == [rule]
    assert any(words in line for line in found[rule]), found


def test_style_is_advice(lesson: Lesson):
    """What `make lesson-lint` prints makes no test fail."""
    assert {"opening", "closing", "question", "grain", "path_length"} == set(TASTE) and not set(TASTE) & set(RULES)


def test_every_rule_is_broken_once():
    assert {rule for rule, _, _ in BREAKS} == {*RULES, *TASTE}


def test_metadata_of_an_editor_is_found(lesson: Lesson):
    lesson.notebook.metadata["widgets"] = {"state": {}}
    assert violations(lesson) == {"clean": ["metadata of this machine: ['widgets']"]}


def test_an_unexecuted_notebook_fails(lesson: Lesson):
    for _, cell in lesson.code:
        cell.execution_count, cell.outputs = None, []
    found = violations(lesson)
    assert len(found["executed"]) == len(lesson.code)
    assert "versions and seed are not printed" in found["start"][0] and {"checked", "exercises"} <= set(found)


def test_anchors_of_documents_and_of_this_lesson_are_known(lesson: Lesson):
    source = "[time](notes.md#on-time--place), [saw](#What-we-saw), [as a code host writes it](#what-we-saw)"
    lesson.notebook.cells[SAW + 1].source += source
    assert violations(lesson) == {}


def test_words_of_formulas_and_code_are_not_counted(lesson: Lesson):
    before = words_per_line(lesson)
    lesson.notebook.cells[SAW].source += " $a b c$ `d e f` $$g h$$\n```\ni j k\n```\n"
    assert words_per_line(lesson) == before
    lesson.notebook.cells[SAW].source += " one more"
    assert words_per_line(lesson) > before


def test_an_exception_that_is_shown_or_raised_again_is_not_swallowed(lesson: Lesson):
    lesson.notebook.cells[CHECKED].source += "\ntry:\n    f()\nexcept (ValueError, OSError) as error:\n    print(error)"
    lesson.notebook.cells[
        CHECKED + 2
    ].source += "\ntry:\n    f()\nexcept Exception as error:\n    raise OSError from error"
    assert RULES["exceptions"](lesson) == []


# ---- nbval, with the flags of the Makefile: does `make test` see a broken cell and a changed output?


@pytest.fixture(scope="module")
def nbval(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess:
    """One run over three notebooks of one cell: a good one, one that raises, one that prints something else now."""
    makefile = (paths.project_root() / "Makefile").read_text()
    flags = re.search(r"PYTEST\) --no-loadscope-reorder ((?:--nbval\S* )+)", makefile)[1].split()
    folder = tmp_path_factory.mktemp("nbval")
    mark = "# NBVAL_CHECK_OUTPUT\n"
    sources = {"good": mark + "print(1)", "raises": "raise ValueError(1)", "changed": mark + "print(2)"}
    for name, source in sources.items():
        cell = code(source, *([] if name == "raises" else [printed("1\n")]))
        cell.execution_count = 1
        nbformat.write(v4.new_notebook(cells=[cell]), folder / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-rpf", "-p", "no:cacheprovider", *flags, "."]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.mark.parametrize(("name", "verdict"), [("good", "PASSED"), ("raises", "FAILED"), ("changed", "FAILED")])
def test_nbval_sees_a_broken_cell_and_a_changed_output(nbval: subprocess.CompletedProcess, name: str, verdict: str):
    assert re.search(rf"^{verdict} {name}\.ipynb::", nbval.stdout, re.M), nbval.stdout + nbval.stderr
    assert nbval.returncode == 1


@pytest.mark.parametrize("path", sorted(paths.notebooks_dir().glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_player_and_no_figure_is_thrown_away(path: Path):
    """Of a cell only the last expression is shown: a player or a figure before it needs display()."""
    drawn = r"(?:figures|draw|inside|attention_figures|worth_figures)\.(?!label_trained)\w+"
    shows = rf"(lesson\.players?|{drawn}|spectrograms|waveforms)\("
    lost = []
    for i, cell in Lesson.read(path).code:
        nodes = [node for node in ast.parse(cell.source).body[:-1] if isinstance(node, ast.Expr)]
        lost += [f"cell {i}: {ast.unparse(node)[:60]}" for node in nodes if re.match(shows, ast.unparse(node))]
    assert lost == []
