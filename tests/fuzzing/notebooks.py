"""Notebooks: their JSON, their parameters cell, and values for parameters."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from hypothesis import strategies as st

from dccrn_lib.lessons.running.cleaning import clean_notebook
from dccrn_lib.lessons.running.execution import NotebookRun
from dccrn_lib.lessons.running.notebooks import describe_parameters
from dccrn_lib.lessons.running.parameters import assign, parse_cell
from dccrn_lib.lessons.running.report import write_report
from tests.fuzzing.mutations import TEXTS, json_text
from tests.fuzzing.running import Target
from tests.fuzzing.settings import VALUES

CELL = """seed: int = 0  # of everything drawn
rate: float = 0.5  # of learning
plot: bool = True  # draw
steps: list[int] = [1]  # sizes
speech: str = ""  # manifest
"""
_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
_OUTPUTS = [
    {"output_type": "stream", "name": "stdout", "text": ["a  b\n", "1  2\n"]},
    {"output_type": "execute_result", "execution_count": 2, "metadata": {},
     "data": {"text/plain": "3", "text/html": "<b>3</b>"}},
    {"output_type": "display_data", "metadata": {}, "data": {"image/png": _PICTURE, "text/plain": "figure"}},
    {"output_type": "display_data", "metadata": {}, "data": {"text/latex": "$x^2$"}},
    {"output_type": "error", "ename": "ValueError", "evalue": "x", "traceback": ["\x1b[31mValueError\x1b[0m: x"]},
]  # fmt: skip
NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "dccrn": {"needs": ["01_b"]},
    },
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {},
         "source": ["# A $x$\n", "## Part [b](01_b.ipynb)\n", "$$\\frac{1}{2}$$"]},
        {"cell_type": "code", "id": "b", "metadata": {"tags": ["parameters"]}, "execution_count": 1, "outputs": [],
         "source": CELL},
        {"cell_type": "code", "id": "c", "metadata": {}, "execution_count": 2, "outputs": _OUTPUTS, "source": "1 + 2"},
        {"cell_type": "raw", "id": "d", "metadata": {}, "source": ""},
    ],
}  # fmt: skip


def take_notebook(text: bytes, folder: Path) -> None:
    """List its parameters, clean it, and make a report of it."""
    path = folder / "out" / "01_a.ipynb"
    path.write_bytes(text)
    describe_parameters(None, folder / "out")
    clean_notebook(path)
    run = NotebookRun("01_a", "ok", 1.0, path.name)
    write_report(folder / "out" / "report.html", folder / "out", [run])


LITERALS = st.sampled_from(
    ("0", "1.5", "True", '""', "[1, 2]", "-1", "1e999", "9" * 400, "0x" + "f" * 5000, "[" * 300, "{}", "{[]: 1}", "(1,)",
     "1 +", "1j", "b''", "f'{1}'", "None", "[None]", "...", "-" * 3000 + "1", "'\\ud800'", "'\0'", "lambda: 0", "10**400")
)  # fmt: skip
TYPES = st.sampled_from(
    ("int", "float", "str", "bool", "list[int]", "list[str]", "list[list[int]]", "int | None", "x.y", "''")
)


@st.composite
def cells(draw: st.DrawFn) -> tuple[str, dict]:
    """(source of a parameters cell, values for parameters)."""
    names = st.sampled_from(("seed", "rate", "speech", "plot", "steps", "out", "clip", "device"))
    lines = []
    for _ in range(draw(st.integers(0, 3))):
        line = f"{draw(names)}: {draw(TYPES)} = {draw(LITERALS)}  # help"
        lines.append(line if draw(st.integers(0, 4)) else draw(TEXTS))
    source = "\n".join([CELL] * draw(st.booleans()) + lines)
    return source, draw(st.dictionaries(names | TEXTS, VALUES, max_size=2))


def take_cell(given: tuple[str, dict], folder: Path) -> None:
    """Read the cell and give its parameters values; each can be written into a notebook."""
    source, values = given
    parameters = parse_cell(source)
    (folder / "a.jsonl").touch()
    for assigned in assign(values, {"01_a": parameters}, folder).values():
        for value in assigned.values():
            assert ast.literal_eval(repr(value)) == value
            str(value).encode()


NOTEBOOKS = Target("notebooks", json_text(NOTEBOOK), take_notebook, lambda: json.dumps(NOTEBOOK).encode())
PARAMETERS = Target("parameters", cells(), take_cell, lambda: (CELL, {"seed": "5", "speech": "a.jsonl"}))
