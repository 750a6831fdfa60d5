"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from dccrn_lib.runtime import paths

# helpers of the tests are imported as tests.<package>, however pytest was started; last, so that a broken copy of the
# package on PYTHONPATH (tests/mutations) stays the one that is tested
if (_ROOT := str(Path(__file__).resolve().parents[1])) not in sys.path:
    sys.path.append(_ROOT)

# kernels and child processes of the tests shall not fight for the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def repeatable() -> float:
    """How near a second computation of the same must come: equal; older torch sums by how memory happens to be aligned."""
    from torch import __version__

    return 0.0 if Version(__version__) >= Version("2.11") else 1e-6


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Commands that train let the processor treat denormal numbers as 0, for good; the next test has them again."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch computes on one thread: what is compared bit by bit must be summed in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def flushed() -> None:
    """torch takes denormal numbers for 0, as the commands that train do; :func:`denormal_numbers` ends it."""
    import torch

    torch.set_flush_denormal(True)


@pytest.fixture
def hears_signals() -> Iterator[None]:
    """Children hear Ctrl-C and SIGHUP, though these tests were started deaf to them (``nohup make test``)."""
    numbers = [n for name in ("SIGINT", "SIGHUP") if (n := getattr(signal, name, None))]
    ignored = [n for n in numbers if signal.getsignal(n) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for pictures of the browser tests: DCCRN_SCREENSHOTS, or a temporary one."""
    named = os.environ.get("DCCRN_SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def root() -> Path:
    """The project's root folder."""
    return paths.project_root()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Manifests {"speech", "noise", "rir"} of a small generated corpus, made once; tests read it and leave it as it is."""
    pytest.importorskip("espeakng_loader", reason="the extra speech is not installed")
    from dccrn_lib.corpus.synthesis.corpus import generated_corpus

    made = generated_corpus(0.02, root=tmp_path_factory.mktemp("generated"), progress=False)
    return {"speech": str(made.speech), "noise": str(made.noise), "rir": str(made.rir)}


@pytest.fixture(scope="session")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of docs/book, built as for a repository "owner/name", with a demo of one page."""
    for module in ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx_design", "sphinx_copybutton", "mathjax"):
        pytest.importorskip(module, reason="the extra book is not installed: pip install -e '.[book]'")
    folder = tmp_path_factory.mktemp("book")
    (folder / "demo").mkdir()
    (folder / "demo" / "index.html").write_text("<!DOCTYPE html><title>demo</title>", encoding="utf-8")
    project = paths.project_root()
    command = [sys.executable, str(project / "docs/book/make.py"), "--out", str(folder / "pages")]
    environment = os.environ | {"GITHUB_REPOSITORY": "owner/name"}
    done = subprocess.run(
        [*command, "--demo", str(folder / "demo")], capture_output=True, text=True, cwd=project, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "pages"


@pytest.fixture
def write_notebook(tmp_path: Path) -> Callable[..., Path]:
    """Write a small notebook: ``write_notebook("01_first", parameters, "code", "code", needs=[...])``."""
    nbformat = pytest.importorskip("nbformat", reason="the extra notebooks is not installed")

    def write(name: str, parameters: str | None, *sources: str, needs: list[str] | None = None) -> Path:
        v4 = nbformat.v4
        cells = [v4.new_markdown_cell(f"# Lesson {name}\n\nAn equation $x^2$ and\n\n$$\\sum_k y_k$$\n\n## Part one")]
        if parameters is not None:
            cells.append(v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
        cells += [v4.new_code_cell(source) for source in sources]
        notebook = v4.new_notebook(cells=cells, metadata={"dccrn": {"needs": needs}} if needs else {})
        folder = tmp_path / "notebooks"
        folder.mkdir(exist_ok=True)
        nbformat.write(notebook, folder / f"{name}.ipynb")
        return folder

    return write
