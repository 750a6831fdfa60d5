"""Functions: none is longer than one can read, and networks are asked, not told apart by their class."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

#: Most lines of code in a function: docstrings, blank lines and comments do not count.
LONGEST = 60

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of_code(function: ast.AST, source: list[str]) -> int:
    """Lines from ``def`` to the end, without those that hold only a docstring, a comment or nothing."""
    docstrings: set[int] = set()
    for node in ast.walk(function):
        if isinstance(node, (*_FUNCTION, ast.ClassDef)) and ast.get_docstring(node, clean=False) is not None:
            docstrings |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    numbers = range(function.lineno, function.end_lineno + 1)
    texts = [source[n - 1].strip() for n in numbers if n not in docstrings]
    return sum(bool(text) and not text.startswith("#") for text in texts)


def functions(root: Path) -> Iterator[tuple[int, str]]:
    """(lines of code, "file: name") of every function and method of the library."""
    for path in sorted((root / "dccrn_lib").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, _FUNCTION):
                name = f"{path.relative_to(root / 'dccrn_lib').as_posix()}: {node.name}"
                yield lines_of_code(node, text.splitlines()), name


#: Packages in which every public function and method says what it does.
DESCRIBED = ("audio", "distillation", "enhancement", "evaluation", "losses.py", "networks", "results")


def undescribed(node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    """Public functions, and those of public classes, without a docstring; overloads leave it to the last one."""
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from undescribed(child, f"{prefix}{child.name}.")
        elif isinstance(child, _FUNCTION) and not child.name.startswith("_") and not ast.get_docstring(child):
            if not any(ast.unparse(decorator) == "overload" for decorator in child.decorator_list):
                yield f"{prefix}{child.name}"


def test_public_functions_have_docstrings(root: Path):
    missing = []
    for part in DESCRIBED:
        place = root / "dccrn_lib" / part
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            missing += [f"{path.relative_to(root)}: {name}" for name in undescribed(ast.parse(path.read_text()))]
    assert missing == []


def test_lines_of_code_are_counted_without_prose():
    text = (
        'def f(a):\n    """Prose.\n\n    More.\n    """\n    # remark\n\n    def g():\n        "One."\n'
        "        return (\n            a\n        )  # counts\n\n    return g\n"
    )
    assert lines_of_code(ast.parse(text).body[0], text.splitlines()) == 6


def test_no_function_is_longer_than_one_can_read(root: Path):
    lengths = sorted(functions(root), reverse=True)
    print("longest functions, in lines of code:", *(f"{n:4d}  {name}" for n, name in lengths[:5]), sep="\n")
    assert len(lengths) > 500, "the functions of the library were not found"
    too_long = {name: n for n, name in lengths if n > LONGEST}
    assert too_long == {}


#: Asking which network this is, by class or by name.
_TOLD_APART = re.compile(
    r"(?:isinstance|issubclass)\(\s*[\w.\[\]]+,[^:]*?\b(?:DCCRN|Uformer)\w*"
    r"|\.startswith\([\"'](?:uformer|dccrn|distil)"
)


def test_networks_answer_for_themselves(root: Path):
    """Outside dccrn_lib/networks nobody tells DCCRN from Uformer: ``streams``, ``lookahead_frames``, ``family`` say it."""
    for wrong in (
        "isinstance(model, (nn.Linear, Uformer))",
        'model.startswith("uformer")',
        "isinstance(c, DCCRNConfig)",
    ):
        assert _TOLD_APART.search(wrong), wrong
    networks = root / "dccrn_lib" / "networks"
    outside = [p for p in (root / "dccrn_lib").rglob("*.py") if networks not in p.parents]
    found = [(p.name, m.group()) for p in outside for m in _TOLD_APART.finditer(p.read_text(encoding="utf-8"))]
    assert found == []
