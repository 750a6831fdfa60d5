"""What a number may depend on besides config, seed and data: versions, threads, commit."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from typing import Any

from dccrn_lib.runtime.paths import project_root
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
    """The commit of the working tree with "+" behind it when files differ; None outside a repository."""
    try:
        command = ["git", "-C", str(project_root()), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
