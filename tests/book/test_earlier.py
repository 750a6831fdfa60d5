"""A build replaces an earlier build and nothing else. No sphinx and no Node.js is needed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dccrn_lib.runtime.paths import project_root
from tests.demo.demo_page import bundle_module

DEMO = ("index.html", "style.css", "licences.txt", "page.js", "engine.js", "clips.js")
BOOK = (
    *(".buildinfo", "objects.inv", "searchindex.js", "genindex.html", "search.html", "index.html", "README.html"),
    *("_static/book.css", "_images/a.png", "_sources/index.md", "_sources/README.md", "demo/index.html"),
    *("notebooks/01_a.html", "_sources/notebooks/01_a.ipynb"),
)


def fill(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")
    return folder


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/book/make.py with a sphinx that writes one page."""

    def sphinx(arguments: list[str]) -> int:
        fill(Path(arguments[-1]), ("index.html", "_static/book.css"))
        return 0

    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("sphinx", "sphinx.cmd", "sphinx.cmd.build"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["sphinx.cmd.build"], "main", sphinx, raising=False)
    spec = importlib.util.spec_from_file_location("book_make", project_root() / "docs/book/make.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.sources, "lay_out", lambda root, target: target)
    return module


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/book/demo/bundle.py on a machine without Node.js, which is what it finds missing first."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = bundle_module()
    monkeypatch.setattr(module, "node_and_npm", lambda: None)
    return module


@pytest.mark.parametrize("names", [("thesis.txt",), (*DEMO, "thesis.txt"), ("index.html", "style.css")])
def test_the_demo_refuses_a_folder_of_other_things(bundle: ModuleType, tmp_path: Path, names: tuple[str, ...]):
    out = fill(tmp_path / "out", names)
    with pytest.raises(SystemExit, match="holds something else .* new or an empty folder"):
        bundle.build(out)
    assert {path.name for path in out.iterdir()} == set(names)


@pytest.mark.parametrize("names", [None, (), DEMO])
def test_the_demo_takes_a_new_folder_an_empty_one_and_an_earlier_demo(bundle: ModuleType, tmp_path: Path, names):
    if names is not None:
        (tmp_path / "out").mkdir()
        fill(tmp_path / "out", names)
    with pytest.raises(SystemExit, match=r"no Node\.js"):
        bundle.build(tmp_path / "out")


def test_the_files_of_a_demo_are_those_that_the_build_writes(bundle: ModuleType):
    script = (project_root() / "docs/book/demo/bundle.mjs").read_text()
    assert all(f'"{name}"' in script for name in DEMO) and set(DEMO) == bundle.earlier.DEMO
    assert script.count("write(") == 3


@pytest.mark.parametrize(
    "names",
    [
        ("thesis.txt",),
        (*BOOK, "thesis.txt"),
        (*BOOK, "thesis/one.txt"),
        ("output.txt",),
        ("index.html", "objects.inv", "searchindex.js", "_sources/index.md"),
    ],
)
def test_the_book_refuses_a_folder_of_other_things(make: ModuleType, tmp_path: Path, names: tuple[str, ...]):
    out = fill(tmp_path / "out", names)
    with pytest.raises(SystemExit, match="holds something else"):
        make.build(out)
    assert all((out / name).is_file() for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("names", [(), BOOK, ("output.txt", "output.json")])
def test_the_book_replaces_what_an_earlier_build_left(make: ModuleType, tmp_path: Path, names: tuple[str, ...]):
    (tmp_path / "out").mkdir()
    out = fill(tmp_path / "out", names)
    for _ in range(2):
        assert make.build(out) == 0
        assert {path.name for path in out.iterdir()} == {"index.html", "_static", ".dccrn-book"}
        (out / "index.html").write_text("an older page")
    (out / "_static" / "mine.css").write_text("mine")
    with pytest.raises(SystemExit, match="holds something else"):
        make.build(out)
    assert (out / "_static" / "mine.css").read_text() == "mine"


def test_a_file_is_no_folder_to_write_to(make: ModuleType, bundle: ModuleType, tmp_path: Path):
    (tmp_path / "out").write_text("mine")
    for module in (make, bundle):
        with pytest.raises(SystemExit, match="holds something else"):
            module.build(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("pages", [(), ("_static/book.css",)])
def test_a_build_that_breaks_off_leaves_the_earlier_book(make: ModuleType, monkeypatch, tmp_path: Path, pages):
    out = tmp_path / "out"
    assert make.build(out) == 0
    before = sorted(path.name for path in out.rglob("*"))
    monkeypatch.setattr(sys.modules["sphinx.cmd.build"], "main", lambda a: fill(Path(a[-1]), pages) and 2)
    assert make.build(out) == 2
    assert sorted(path.name for path in out.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
