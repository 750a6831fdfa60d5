"""What packages offer: one table at run time, the same names with their types for a type checker."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ["", ".audio", ".distillation", ".enhancement", ".evaluation", ".networks", ".results", ".training"]

USES = """
import dccrn_lib
import dccrn_lib.evaluation

reveal_type(dccrn_lib.load_model)
reveal_type(dccrn_lib.score_pair)
reveal_type(dccrn_lib.enhance_file)
reveal_type(dccrn_lib.evaluation.Difference)
reveal_type(dccrn_lib.probes.measure_lookahead)
dccrn_lib.load_modle
"""


def offered(source: str, package: str) -> dict[str, str]:
    """Public name -> module below the package, as the imports for type checkers give it."""
    (block,) = [n for n in ast.parse(source).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    names = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").removeprefix(f"{package}.")
            for alias in node.names:
                if alias.asname:  # without "as" a name is not offered
                    assert alias.asname == alias.name
                    names[alias.name] = module
                else:
                    names[alias.name] = f"{module}.{alias.name}:"
        elif isinstance(node, ast.Assign):  # a module under another name
            names[ast.unparse(node.targets[0])] = names.pop(ast.unparse(node.value))
    return names


@pytest.mark.parametrize("below", PACKAGES)
def test_type_checkers_are_told_the_names_of_the_table(below: str):
    package = importlib.import_module(f"dccrn_lib{below}")
    source = Path(package.__path__[0], "__init__.py").read_text(encoding="utf-8")
    assert offered(source, package.__name__) == package._PUBLIC


def test_every_package_with_a_table_is_compared(root: Path):
    with_table = {p.parent for p in (root / "dccrn_lib").rglob("__init__.py") if "_PUBLIC = " in p.read_text()}
    assert with_table == {root.joinpath("dccrn_lib", *below.split(".")) for below in PACKAGES}


def test_a_misspelt_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'dccrn_lib' has no attribute 'load_modle'"):
        importlib.import_module("dccrn_lib").load_modle  # noqa: B018


def test_the_package_uses_its_modules_not_its_public_names():
    """``import dccrn_lib`` in a module would reach every package, whatever the directions of imports say."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("dccrn_lib", cache_dir=None)
    assert graph.find_modules_that_directly_import("dccrn_lib") == {"dccrn_lib.lessons.built.uformer"}
    assert "dccrn_lib.networks.weights" in graph.find_modules_directly_imported_by("dccrn_lib")


@pytest.mark.slow
def test_pyright_knows_the_types_of_public_names(root: Path, tmp_path: Path):
    pytest.importorskip("pyright")
    (tmp_path / "uses.py").write_text(USES)
    config = {"extraPaths": [str(root)], "typeCheckingMode": "basic", "reportMissingImports": "none"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    reports = json.loads(done.stdout)["generalDiagnostics"]
    revealed = [report["message"] for report in reports if report["severity"] == "information"]
    model, score, enhance, difference, lookahead = revealed
    assert model.endswith('-> (DCCRN | Uformer)"'), model
    assert score.endswith('-> dict[str, Any]"'), score
    assert enhance.endswith('-> EnhancedFile"'), enhance
    assert difference.endswith('is "type[Difference]"'), difference
    assert lookahead.endswith('-> (int | float)"'), lookahead
    (error,) = [report for report in reports if report["severity"] == "error"]
    assert "load_modle" in error["message"] and error["rule"] == "reportAttributeAccessIssue"


def test_every_module_that_is_imported_exists(root: Path):
    """pyright is told to pass over missing imports, as extras need not be installed; ours have to be there."""
    missing = []
    for path in sorted((root / "dccrn_lib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                file = root / module.replace(".", "/")
                if module.split(".")[0] == "dccrn_lib" and not (file.with_suffix(".py").is_file() or file.is_dir()):
                    missing.append(f"{path.relative_to(root)}:{node.lineno}: {module}")
    assert missing == []


def test_what_is_kept_from_pyright_says_why(root: Path):
    """A comment on the line or above it; no ignore without a rule."""
    without = []
    for path in sorted((root / "dccrn_lib").rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        for above, line in zip(["", *lines], lines, strict=False):
            code, mark, rest = line.partition("# pyright: ignore[")
            said = above.lstrip().startswith("# ") or "  # " in code or "  # " in rest
            if mark and not said or "# type: ignore" in line or line.endswith("# pyright: ignore"):
                without.append(f"{path.relative_to(root)}: {line.strip()}")
    assert without == []
