"""Where things lie. Every path hangs off the project root, so that notebooks, tests and the command line agree.

The root is the folder that holds ``dccrn_lib`` (a clone with an editable install), unless the environment
variable ``DCCRN_ROOT`` names another one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def project_root() -> Path:
    """Folder that holds notebooks/, data/, weights/ and results/."""
    return Path(os.environ.get("DCCRN_ROOT", Path(__file__).resolve().parent.parent))


def notebooks_dir() -> Path:
    """The lessons."""
    return project_root() / "notebooks"


def data_dir() -> Path:
    """Sentences, recipes and demo clips that are part of the project."""
    return project_root() / "data"


def generated_dir() -> Path:
    """Generated corpora (git-ignored); the environment variable ``DCCRN_GENERATED`` moves it."""
    return Path(os.environ.get("DCCRN_GENERATED", data_dir() / "generated"))


def weights_dir() -> Path:
    """Shipped checkpoints."""
    return project_root() / "weights"


def results_dir() -> Path:
    """JSON behind every published number."""
    return project_root() / "results"


def runs_dir() -> Path:
    """Output of notebook and training runs (git-ignored)."""
    return project_root() / "runs"


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there on success, remove it on any exception.

    A reader never sees a half-written file, and an interrupted run leaves the old one as it was.
    The temporary file keeps the suffix of ``path``, because audio writers choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
