"""What a number may depend on besides config, seed and data: versions, threads, commit."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from dccrn_lib.runtime.workers import usable_cores

_PACKAGES = ("torch", "torchaudio", "numpy", "soundfile", "pesq", "pystoi", "speechmos", "onnxruntime")


def environment_record() -> dict[str, Any]:
    """Versions, threads and git commit: what a number may depend on besides config, seed and data."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    import torch  # here: `dccrn results` writes tables without it

    return {
        "versions": versions,
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """The commit of this code with "+" behind it when files differ; None where it is not part of a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # an installed wheel may lie within a repository of the user's, which does not hold it
        held = [*git, "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(held, capture_output=True, check=True, timeout=20)
        command = [*git, "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
