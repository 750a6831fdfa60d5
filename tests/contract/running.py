"""What was run in a lesson, and what it checks."""

from __future__ import annotations

import ast
import importlib
import re

from dccrn_lib.lessons.running.cleaning import cleaned
from dccrn_lib.runtime.errors import DccrnError
from tests.contract.reading import Lesson, tree_of

CHECKED_CELLS = (5, 10)  # cells whose output nbval compares
EXERCISES = (2, 4)
CHECK_MARK = "NBVAL_CHECK_OUTPUT"


def executed(lesson: Lesson) -> list[str]:
    """Every code cell was run once, from top to bottom, without an error."""
    found, expected = [], 0
    for i, cell in lesson.code:
        if not cell.source.strip():
            found.append(f"cell {i}: an empty code cell")
            continue
        expected += 1
        if cell.execution_count is None:
            found.append(f"cell {i}: not executed")
        elif cell.execution_count != expected:
            found.append(f"cell {i}: executed as number {cell.execution_count}, in order it is {expected}")
        if any(output.output_type == "error" for output in cell.outputs):
            found.append(f"cell {i}: ends in an error")
    return found


def clean(lesson: Lesson) -> list[str]:
    """Cleaning changes nothing: no stderr, timings, widget state, machine paths or memory addresses."""
    try:
        wanted = cleaned(lesson.notebook, lesson.path.name)
    except DccrnError as error:
        return [str(error).removeprefix(f"{lesson.path.name}: ")]
    found = []
    if wanted.metadata != lesson.notebook.metadata:
        found.append(f"metadata of this machine: {sorted(set(lesson.notebook.metadata) - set(wanted.metadata))}")
    for i, (before, after) in enumerate(zip(lesson.notebook.cells, wanted.cells, strict=True)):
        if before.metadata != after.metadata:
            found.append(f"cell {i}: metadata of this machine: {sorted(set(before.metadata) - set(after.metadata))}")
        # the numbers of execution are another rule's
        if [{**o, "execution_count": 0} for o in before.get("outputs", [])] != [
            {**o, "execution_count": 0} for o in after.get("outputs", [])
        ]:
            found.append(f"cell {i}: an output that differs from machine to machine (stderr, a widget, a path)")
    return found


def exceptions(lesson: Lesson) -> list[str]:
    """No exception disappears: no bare or empty ``except``, no broad one that goes on, no broad ``suppress``."""
    found = []
    for i, cell in lesson.code:
        tree = tree_of(cell.source)
        if tree is None:
            found.append(f"cell {i}: not plain Python")
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and _swallows(node):
                found.append(f"cell {i}: an exception is swallowed in its line {node.lineno}")
            elif isinstance(node, ast.Call) and re.fullmatch(r"(contextlib\.)?suppress", ast.unparse(node.func)):
                found.append(f"cell {i}: suppress() swallows an exception in its line {node.lineno}")
    return found


def _swallows(handler: ast.ExceptHandler) -> bool:
    raises = any(isinstance(node, ast.Raise) for node in ast.walk(handler))
    broad = handler.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(handler.type))
    does = [n for n in handler.body if not isinstance(n, ast.Pass | ast.Continue | ast.Break)]
    does = [n for n in does if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
    return not raises and (bool(broad) or not does)


def checked(lesson: Lesson) -> list[str]:
    """5 to 10 cells whose printed output nbval compares."""
    marked = [(i, cell) for i, cell in lesson.code if re.search(rf"^#\s*{CHECK_MARK}\b", cell.source, re.M)]
    found = []
    if not CHECKED_CELLS[0] <= len(marked) <= CHECKED_CELLS[1]:
        found.append(f"{len(marked)} cells with {CHECK_MARK}; {CHECKED_CELLS[0]} to {CHECKED_CELLS[1]} are wanted")
    for i, cell in marked:
        if not any(output.get("name") == "stdout" for output in cell.outputs):
            found.append(f"cell {i}: {CHECK_MARK} where nothing is printed checks nothing")
    return found


def exercises(lesson: Lesson) -> list[str]:
    """2 to 4 exercises, each with a grader of dccrn_lib.lessons.grading, committed without its answer."""
    begin, end = lesson.find_heading("Exercises"), lesson.find_heading("Next")
    if begin is None or end is None:
        return []  # the closing says so
    calls = [(i, name) for i, cell in lesson.code if begin < i <= end for name in _graders(cell.source)]
    found = []
    if not EXERCISES[0] <= len(calls) <= EXERCISES[1]:
        found.append(f"{len(calls)} exercises; {EXERCISES[0]} to {EXERCISES[1]} are wanted")
    named = r"\bfrom dccrn_lib\.lessons\.(\w+)(?:\.exercises import|\s+import[\s(]+[\w\s,]*\bexercises\b)"
    modules = {f"dccrn_lib.lessons.{m}.exercises" for _, c in lesson.code for m in re.findall(named, c.source)}
    known = {name for module in sorted(modules) for name in dir(importlib.import_module(module))}
    for i, name in calls:
        if name not in known:
            found.append(f"cell {i}: there is no grader {name}")
        shown = [o.get("data", {}).get("text/plain", "") for o in lesson.notebook.cells[i].outputs]
        if not any(text.startswith("Not yet: ") for text in shown):
            found.append(f"cell {i}: the grader's verdict on the open exercise must read 'Not yet: ...'")
    return found


def _graders(source: str) -> list[str]:
    """Names of the graders that a cell calls."""
    tree = tree_of(source)
    called = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)] if tree else []
    return [name.split(".")[-1] for name in called if name.split(".")[-1].startswith("check_")]
