"""Where things lie: environment variables, and paths that are joined by commas."""

from __future__ import annotations

from pathlib import Path

import pytest

from dccrn_lib.runtime import paths
from dccrn_lib.runtime.paths import generated_dir, joined_paths, project_root


@pytest.mark.parametrize("name", ["a, b/speech.jsonl", "a,b/c,d/speech.jsonl", "speech,2.jsonl"])
def test_a_comma_in_the_name_of_a_file_that_exists_joins_nothing(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert joined_paths(file) == [str(file)]
    assert joined_paths(f"{file}, {file},other.jsonl") == [str(file), str(file), "other.jsonl"]


def test_paths_that_do_not_exist_end_at_each_comma():
    assert joined_paths("a.jsonl, b.jsonl,") == ["a.jsonl", "b.jsonl"] and joined_paths("") == []


def test_extras_are_installed_from_the_clone_wherever_one_is(monkeypatch, tmp_path):
    clone = Path(paths.__file__).resolve().parents[2]
    monkeypatch.chdir(clone)
    assert paths.install_command("speech") == "python -m pip install -e '.[speech]'"
    monkeypatch.chdir(tmp_path)
    assert paths.install_command("speech") == f"python -m pip install -e '{clone}[speech]'"
    monkeypatch.setattr(paths, "_SHIPPED", tmp_path)  # a wheel
    assert paths.install_command("speech") == "python -m pip install 'dccrn-lib[speech]'"


def test_an_empty_variable_moves_nothing(monkeypatch):
    monkeypatch.setenv("DCCRN_GENERATED", "")
    assert generated_dir() == project_root() / "data" / "generated"
    monkeypatch.setenv("DCCRN_GENERATED", "corpora")
    assert generated_dir() == Path("corpora")
