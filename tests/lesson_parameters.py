"""A plugin of pytest: lessons under nbval with other parameters, set as papermill sets them.

    pytest -p tests.lesson_parameters --nbval-lax --lesson-parameters 05_distillation:train_steps=160 notebooks

nbval runs a lesson as it is committed, so a lesson that trains would train in full, and do so in every check. What is
named here is assigned after the cell tagged ``parameters``, and ``out`` leads to a temporary folder, so that a short
training is never taken for that of ``make tutorial``. The cells that are compared are the same.
"""

from __future__ import annotations

import ast
import tempfile
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--lesson-parameters",
        action="append",
        default=[],
        metavar="LESSON:NAME=VALUE,...",
        help="parameters of a lesson under nbval; may be given for several lessons",
    )


def parse_parameters(given: str) -> tuple[str, dict[str, object]]:
    """(lesson, {name: value}) of LESSON:NAME=VALUE,...; values are Python literals, or else text.

    Raises:
        pytest.UsageError: the form is another.
    """
    lesson, colon, rest = given.partition(":")
    values = {}
    for part in rest.split(","):
        name, sign, text = part.partition("=")
        if not (lesson and colon and sign and name.isidentifier()):
            raise pytest.UsageError(f"--lesson-parameters {given}: give LESSON:NAME=VALUE,NAME=VALUE")
        try:
            values[name] = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            values[name] = text
    return lesson, values


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = dict(parse_parameters(given) for given in config.getoption("--lesson-parameters"))
    for lesson, values in asked.items():
        cells = [
            item.cell
            for item in items
            if item.path.suffix == ".ipynb" and item.path.stem == lesson and hasattr(item, "cell")
        ]
        if not cells:
            continue  # another part of the tests was asked for
        tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        if len(tagged) != 1:
            raise pytest.UsageError(f"--lesson-parameters {lesson}: {len(tagged)} cells tagged parameters, not one")
        (cell,) = tagged
        known = {
            node.target.id
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        if unknown := values.keys() - known:
            raise pytest.UsageError(
                f"--lesson-parameters {lesson}: no parameters {sorted(unknown)}; it has {sorted(known)}"
            )
        folder = tempfile.TemporaryDirectory(prefix="lesson-")
        config.add_cleanup(folder.cleanup)
        values = {"out": str(Path(folder.name).resolve()), **values} if "out" in known else values
        cell.source = "\n".join([cell.source, *(f"{name} = {value!r}" for name, value in values.items())])
