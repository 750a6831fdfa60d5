"""Which cells of a lesson a widget needs: a backward slice over the names that cells define and use."""

from __future__ import annotations

import builtins
import dis
from collections.abc import Sequence
from types import CodeType

import nbformat


def _names(code: CodeType) -> tuple[set[str], set[str]]:
    """(defined, needed): global names that code assigns or imports, and those it reads before that, in order."""
    defined, needed = set(), set()
    for step in dis.get_instructions(code):
        if step.opname == "STORE_NAME":
            defined.add(step.argval)
        elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            needed |= {step.argval} - defined
        elif isinstance(step.argval, CodeType):  # a function, class or comprehension
            needed |= _names(step.argval)[1] - defined
    return defined, needed - set(dir(builtins))


def needed_cells(notebook: nbformat.NotebookNode, marker: str, also: Sequence[str] = ()) -> list[int]:
    """Indices of the code cells to run, in order, so that the last one, the cell that calls ``marker``, can run.

    For each name the nearest earlier cell that defines it is taken, and what that one needs in turn. Cells that only
    change an object in place are not seen; a widget that needs one names it in ``also``, or fails loudly.

    Args:
        notebook: a lesson.
        marker: text that stands in the widget's cell and in no other code cell, e.g. ``"widgets.mixer("``.
        also: such a text of each further cell that is needed.

    Raises:
        ValueError: no such cell, or several.
    """
    code = {i: cell.source for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"}
    found = []
    for text in (marker, *also):
        cells = [i for i, source in code.items() if text in source]
        if len(cells) != 1:
            raise ValueError(f"{len(cells)} cells contain {text!r}; one is needed")
        found += cells
    names = {i: _names(compile(source, f"cell {i}", "exec")) for i, source in code.items() if i <= found[0]}
    chosen, pending = set(found), list(found)
    while pending:
        cell = pending.pop()
        for name in names[cell][1]:
            before = [i for i in names if i < cell and name in names[i][0]]
            if before and before[-1] not in chosen:
                chosen.add(before[-1])
                pending.append(before[-1])
    return sorted(chosen)
