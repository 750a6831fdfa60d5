"""Child interpreters: they find modules where their parent does, and none in the folder one is in."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dccrn_lib.runtime.interpreters import child_command, child_environment, forget_parent, without_current_folder

#: A script that lies elsewhere: it starts processes of each kind and asks them what they would hand down.
SCRIPT = """
import os
from tqdm import tqdm
from dccrn_lib.corpus.loading import Batches
from dccrn_lib.runtime.workers import spawn_pool, worker_pool

if __name__ == "__main__":
    with spawn_pool(1) as pool:
        print(pool.submit(os.getenv, "PYTHONSAFEPATH").result())
    with worker_pool(2) as run:
        print(run(os.getenv, ["PYTHONSAFEPATH"], tqdm(disable=True))[0])
    for context in ("fork", "spawn"):
        print(next(Batches([1, 2], 2, range(2), 1, multiprocessing_context=context)).tolist())
    print(os.getenv("PYTHONSAFEPATH"))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder one is in, with files that are called as modules are."""
    place = tmp_path / "here"
    place.mkdir()
    for name in ("pickle", "random", "tempfile", "dccrn_lib"):
        (place / f"{name}.py").write_text("raise SystemExit('a module of the folder one is in')")
    monkeypatch.chdir(place)
    return place


def test_a_child_takes_no_module_from_the_folder_one_is_in(folder: Path):
    command = child_command("import sys, random, dccrn_lib; print(sys.argv[1:])", "a b")
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment(), timeout=60)
    assert done.stdout == "['a b']\n", done.stderr


def test_a_child_finds_the_package_where_only_an_empty_entry_led_to_it(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [""])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert subprocess.run(child_command("import dccrn_lib"), env=child_environment(A="1"), timeout=60).returncode == 0
    assert child_environment(A="1")["A"] == "1"


@pytest.mark.skipif(os.name != "posix", reason="ways to start a process of POSIX")
def test_no_pool_takes_a_module_from_the_folder_one_is_in(folder: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {name: value for name, value in child_environment().items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout.splitlines() == ["None", "None", "[1, 2]", "[1, 2]", "None"], done.stderr
    assert "folder one is in" not in done.stderr


def test_what_the_user_said_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with without_current_folder():
        forget_parent()
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ["PYTHONSAFEPATH"] == "1"
    monkeypatch.delenv("PYTHONSAFEPATH")
    with without_current_folder():
        assert os.environ["PYTHONSAFEPATH"]
        forget_parent()
        assert "PYTHONSAFEPATH" not in os.environ
    assert "PYTHONSAFEPATH" not in os.environ


def test_interpreters_are_started_in_one_place(root: Path):
    """But for the kernel of a notebook, which looks into the notebook's folder as under JupyterLab."""
    starters = set()
    for path in (root / "dccrn_lib").rglob("*.py"):
        names = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        starters |= {path.name} if "sys.executable" in names else set()
    assert starters == {"interpreters.py", "execution.py"}
