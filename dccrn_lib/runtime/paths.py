"""Where things lie. Every path hangs off the project root, so that notebooks, tests and the command line agree.

The root is the folder that holds ``dccrn_lib`` (a clone with an editable install), unless the environment
variable ``DCCRN_ROOT`` names another one.
"""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """Folder that holds notebooks/, data/, weights/ and results/."""
    return Path(os.environ.get("DCCRN_ROOT", Path(__file__).resolve().parents[2]))


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
