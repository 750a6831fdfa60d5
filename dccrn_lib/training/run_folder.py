"""The folder of one training run: what was asked for, how far it came, and everything needed to resume it.

    config.json        what was asked for
    history.json       losses (mean and batch-to-batch spread), distance by layer, validation, gradient balance, skipped
    checkpoint.pt      everything needed to resume exactly where it stopped
    best.safetensors   (+ .json) the weights that validated best

All files are replaced as a whole: a run killed while it writes keeps the previous ones.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dccrn_lib.networks.weights import read_card
from dccrn_lib.runtime.errors import ConfigError, DamagedFileError, WeightsError
from dccrn_lib.runtime.files import atomic_path, read_json, write_json
from dccrn_lib.runtime.settings import shown
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.inputs import require_same_inputs
from dccrn_lib.training.schedule import hours_of_audio

CONFIG, CHECKPOINT, WEIGHTS = "config.json", "checkpoint.pt", "best.safetensors"
_ANEW = "restore it from a copy, or remove it and move best.safetensors away to train from the start"
_KEYS = ("step", "best", "history", "model", "loss", "average", "optimiser", "rng", "feature_weight", "sums")


@dataclass
class Run:
    """A run as it stands: the networks and the optimiser, how far it came, and what was noted on the way.

    ``sums`` holds the terms of the loss since the last validation, ``best`` the SI-SNR in dB of the best one, ``inputs``
    the hashes of what the run learns from (:func:`~dccrn_lib.training.inputs.input_hashes`).
    """

    model: nn.Module
    average: nn.Module
    loss: nn.Module
    optimiser: torch.optim.Optimizer
    history: dict
    inputs: dict[str, str] = field(default_factory=dict)
    step: int = 0
    best: float = float("-inf")
    sums: dict[str, list[float]] = field(default_factory=dict)

    def state(self) -> dict:
        """Everything needed to resume exactly from here."""
        return {
            "step": self.step,
            "best": self.best,
            "history": self.history,
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": torch.get_rng_state(),
            "feature_weight": self.loss.feature_weight,
            "sums": self.sums,
            "inputs": self.inputs,
        }

    def save(self, out: Path) -> None:
        """Write the checkpoint and the history."""
        save_checkpoint(self.state(), out / CHECKPOINT)
        write_json(out / "history.json", self.history)

    def restore(self, saved: dict, file: Path) -> None:
        """Take over everything from a checkpoint that lies in ``file``, the state of torch's random numbers included.

        Raises:
            ConfigError: a manifest or the teacher holds something else than when the run began.
            DamagedFileError: it is of another network or optimiser.
        """
        require_same_inputs(saved, self.inputs, file)
        try:
            self._restore(saved)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedFileError(f"{file}: does not fit the network of this run; {_ANEW}") from error

    def _restore(self, saved: dict) -> None:
        self.model.load_state_dict(saved["model"])
        if self.average is not self.model:
            self.average.load_state_dict(saved["average"])
        self.loss.load_state_dict(saved["loss"])
        self.loss.feature_weight = saved["feature_weight"]
        self.optimiser.load_state_dict(saved["optimiser"])
        self._lay_out_moments()
        torch.set_rng_state(saved["rng"])
        self.step, self.best, self.history, self.sums = (saved[k] for k in ("step", "best", "history", "sums"))
        self.history["skipped"] = skipped_batches(self.history)

    def _lay_out_moments(self) -> None:
        """Bring the optimiser's moments into the order in memory of their weights, which fused kernels take for granted."""
        for group in self.optimiser.param_groups:
            for weight in group["params"]:
                moments = self.optimiser.state.get(weight, {})
                for name, value in moments.items():
                    if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                        moments[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def skipped_batches(history: dict) -> list[dict]:
    """The batches that a run skipped, {"step", "mixtures"} each.

    The histories of earlier campaigns hold their number only: such batches have the step None and no mixtures.

    >>> skipped_batches({"skipped": 1})
    [{'step': None, 'mixtures': []}]
    """
    skipped = history["skipped"]
    return [{"step": None, "mixtures": []} for _ in range(skipped)] if isinstance(skipped, int) else skipped


def open_run(out: Path, config: Any, resume: bool, may_change: set[str], contents: Collection[str] = ()) -> dict | None:
    """The checkpoint to resume from, or None for a new run.

    Args:
        out: folder of the run.
        config: a frozen dataclass, compared with the one the folder holds; a field that is newer than the run counts
            as its default there.
        resume: whether to resume it.
        may_change: fields that may differ when a run is resumed.
        contents: fields that name files; they may differ, too, where the checkpoint holds the hashes of what the files
            held, which whoever goes on compares (:func:`~dccrn_lib.training.inputs.require_same_inputs`).

    Raises:
        ConfigError: the folder holds a run and ``resume`` is False, or the run there was asked for otherwise, or it left
            weights and no checkpoint.
        DamagedFileError: ``config.json`` or ``checkpoint.pt`` is empty, cut off or holds something else.
    """
    checkpoint = out / CHECKPOINT
    if not resume and ((out / CONFIG).is_file() or checkpoint.is_file()):
        raise ConfigError(f"{out} already holds a run: resume it, or choose another folder")
    saved = load_checkpoint(checkpoint, _KEYS) if checkpoint.is_file() else None
    require_same(out, config, may_change.union(contents) if saved and saved.get("inputs") else may_change)
    if saved:
        return saved
    if (out / WEIGHTS).is_file():
        raise ConfigError(
            f"{out} holds weights, but no {CHECKPOINT} to resume from: restore it from a copy, "
            f"or move {WEIGHTS} away to train from the start"
        )
    return None


def require_same(out: Path, config: Any, may_change: set[str]) -> None:
    """Raise if the run in a folder, if there is one, was asked for otherwise.

    Args:
        out, config, may_change: as of :func:`open_run`.

    Raises:
        ConfigError: a field differs that may not.
        DamagedFileError: ``config.json`` is empty, cut off or holds something else.
    """
    if not (out / CONFIG).is_file():
        return
    old = read_json(out / CONFIG, "remove it to resume with the settings given now")
    now, old = _record(config), with_newer_fields(old, config)
    differing = [k for k in now if k not in may_change and old.get(k) != now[k]]
    if differing:
        key = differing[0]
        raise ConfigError(
            f"{out}: the run there has {key} = {shown(old.get(key))}, asked for {shown(now[key])}; "
            "resume with the same config or choose another folder"
        )


def require_steps(out: Path, saved: dict | None, steps: int) -> None:
    """Raise if the run in a folder has made more steps than are asked for: none of them can be taken back.

    Args:
        out: folder of the run.
        saved: its checkpoint, from :func:`open_run`.
        steps: of the config that it is resumed with.

    Raises:
        ConfigError: the checkpoint is of a later step.
    """
    done = saved["step"] if saved else 0
    if done > steps:
        raise ConfigError(
            f"{out}: the run there has made {done} steps, asked for {steps}: nothing is left to do; give steps above "
            f"{done} to train it on, or choose another folder"
        )


def is_finished(saved: dict | None, steps: int) -> bool:
    """Whether a checkpoint is of a run of so many steps that was validated at its end."""
    return saved is not None and saved["step"] >= steps and last_validation(saved["history"]) >= steps


def last_validation(history: dict) -> int:
    """The step of the last validation, 0 where there was none."""
    return history["valid"][-1]["step"] if history["valid"] else 0


def save_checkpoint(state: dict, path: Path) -> None:
    """Write a checkpoint as a whole. It is made in memory: torch tells less of a full disk than Python does."""
    data = io.BytesIO()
    torch.save(state, data)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(data.getbuffer())


def load_checkpoint(path: Path, keys: Collection[str]) -> dict:
    """A checkpoint of ours, its tensors on the CPU. No code in it is executed.

    Args:
        path: the file.
        keys: what it must hold.

    Raises:
        DamagedFileError: it is empty, cut off or holds something else.
    """
    data = path.read_bytes()
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises anything; torch's own words advise to trust the file
        what = "is cut off or damaged" if data else "is empty"
        raise DamagedFileError(f"{path}: {what}; {_ANEW}") from error
    history = state.get("history", {"valid": []}) if isinstance(state, dict) else None
    if history is None or not set(keys) <= state.keys() or not isinstance(history.get("valid"), list):
        raise DamagedFileError(f"{path}: is no checkpoint of this training; {_ANEW}")
    return state


def run_card(config: TrainConfig, step: int) -> dict[str, Any]:
    """What a card says of a training: how many hours its weights heard, and by which network, method and seed.

    Args:
        config: of the run.
        step: at which the weights are kept.

    Returns:
        {"step", "hours_of_audio", "model", "method", "seed"}. The hours count those of the weights it began with; None
        where their card is silent or gone.
    """
    before: float | None = 0.0
    if config.init:
        try:
            before = read_card(config.init)["card"].get("hours_of_audio")
        except (WeightsError, KeyError):
            before = None
    hours = None if before is None else before + hours_of_audio(config, step)
    names = {name: getattr(config, name) for name in ("model", "method", "seed")}
    return {"step": step, "hours_of_audio": hours, **names}


def write_config(out: Path, config: Any) -> None:
    """Write ``config.json``."""
    write_json(out / CONFIG, dataclasses.asdict(config))


def _record(config: Any) -> dict:
    """As it comes back from a JSON file: pairs as lists."""
    return json.loads(json.dumps(config, default=dataclasses.asdict))


def with_newer_fields(old: Mapping[str, Any], config: Any) -> dict:
    """A record of an older version with the fields it lacks, as they are by default."""
    default, mix = _defaults(config), old.get("mix", {})
    return {**default, **old, "mix": {**default["mix"], **mix} if isinstance(mix, dict) else mix}


def _defaults(config: Any) -> dict:
    """Those fields that have a default, with it."""
    defaults = {}
    for each in dataclasses.fields(config):
        if each.default is not dataclasses.MISSING:
            defaults[each.name] = each.default
        elif each.default_factory is not dataclasses.MISSING:
            defaults[each.name] = each.default_factory()
    return _record(defaults)
