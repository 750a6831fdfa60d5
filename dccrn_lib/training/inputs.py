"""What a run learns from, by its contents: a run is resumed only with the recordings and the teacher it began with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dccrn_lib.corpus.manifest import require_disjoint_splits
from dccrn_lib.networks.weights import find_weights
from dccrn_lib.runtime.errors import ConfigError, WeightsError
from dccrn_lib.runtime.files import hash_files
from dccrn_lib.runtime.paths import joined_paths
from dccrn_lib.training.config import TrainConfig


def input_hashes(config: TrainConfig) -> dict[str, str]:
    """SHA-256 of what the files hold that a run learns from, by the field that names them: manifests and the teacher.

    What is not there is left out: whoever reads it says so, and a run that is finished needs it no longer.
    """
    files = {name: joined_paths(getattr(config, name)) for name in ("speech", "noise", "rir")}
    if config.teacher:
        with suppress(WeightsError):
            files["teacher"] = [str(find_weights(config.teacher))]
    return {name: hash_files(paths) for name, paths in files.items() if all(Path(p).is_file() for p in paths)}


def require_disjoint(config: TrainConfig) -> None:
    """ManifestError if a file, speaker or recording of a run's manifests stands in several splits."""
    for name in ("speech", "noise", "rir"):
        require_disjoint_splits(joined_paths(getattr(config, name)))


def require_same_inputs(saved: dict, inputs: dict[str, str], file: Path) -> None:
    """Raise if a run that is in a checkpoint has learnt from something else.

    Args:
        saved: the checkpoint; those of older versions do not say what they learnt from.
        inputs: from :func:`input_hashes`, as it is now.
        file: where the checkpoint lies.

    Raises:
        ConfigError: a manifest or the teacher holds something else than when the run began.
    """
    before = saved.get("inputs") or {}
    changed = [name for name, digest in inputs.items() if before.get(name, digest) != digest]
    if changed:
        raise ConfigError(
            f"{file}: the contents of {' and '.join(changed)} are no longer those that the run began with; restore "
            "them, or begin a run in another folder (`train --init best.safetensors` takes the weights of this one along)"
        )
