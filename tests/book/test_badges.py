"""The badges of README.md, written for the address of a repository."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from dccrn_lib.runtime.paths import project_root


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("book_badges", project_root() / "docs/book/badges.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    return Path(shutil.copy(project_root() / "README.md", tmp_path / "README.md"))


def test_badges_stand_between_the_marks_and_the_rest_stays(module, readme: Path):
    before = readme.read_text(encoding="utf-8")
    assert module.main(["Owner/name", "--readme", str(readme)]) == 0
    first = readme.read_text(encoding="utf-8")
    for target in (
        "https://github.com/Owner/name/actions/workflows/ci.yml",
        "https://colab.research.google.com/github/Owner/name/blob/main/notebooks/00_start_here.ipynb",
        "https://mybinder.org/v2/gh/Owner/name/main?urlpath=lab/tree/notebooks/00_start_here.ipynb",
        "https://owner.github.io/name/",
        "LICENSE",
    ):
        assert f"]({target})" in first
    assert module.BLOCK.sub("", first) == module.BLOCK.sub("", before)
    assert module.main(["other/one", "--readme", str(readme)]) == 0  # a second address takes the place of the first
    assert "Owner/name" not in readme.read_text(encoding="utf-8")


def test_what_the_badges_open_is_there(module):
    root = project_root()
    assert (root / module.FIRST_LESSON).is_file() and (root / "LICENSE").is_file()
    assert (root / ".github/workflows/ci.yml").is_file() and (root / "binder").is_dir()


def test_the_site_finds_the_address_in_the_badges(module, readme: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    module.write(readme, "owner/name")
    assert module.sources.repository_address(readme.parent) == "owner/name"


@pytest.mark.parametrize("address", ["name", "https://github.com/owner/name", "owner/name/more", "a b/c", ""])
def test_what_is_no_address_is_refused(module, readme: Path, address: str):
    before = readme.read_bytes()
    with pytest.raises(SystemExit, match="owner/name"):
        module.write(readme, address)
    assert readme.read_bytes() == before


def test_a_file_without_marks_is_refused(module, tmp_path: Path):
    (tmp_path / "a.md").write_text("# A\n")
    with pytest.raises(SystemExit, match="badges"):
        module.write(tmp_path / "a.md", "owner/name")
