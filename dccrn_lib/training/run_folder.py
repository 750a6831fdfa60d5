"""The folder of one training run: what was asked for, how far it came, and everything needed to resume it.

    config.json        what was asked for
    history.json       losses (mean and batch-to-batch spread), distance by layer, validation, gradient balance, skipped
    checkpoint.pt      everything needed to resume exactly where it stopped
    best.safetensors   (+ .json) the weights that validated best

All files are replaced as a whole: a run killed while it writes keeps the previous ones.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.files import atomic_path, write_json


@dataclass
class Run:
    """A run as it stands: the networks and the optimiser, how far it came, and what was noted on the way.

    ``sums`` holds the terms of the loss since the last validation, ``best`` the SI-SNR in dB of the best one.
    """

    model: nn.Module
    average: nn.Module
    loss: nn.Module
    optimiser: torch.optim.Optimizer
    history: dict
    step: int = 0
    best: float = float("-inf")
    sums: dict[str, list[float]] = field(default_factory=dict)

    def state(self) -> dict:
        """Everything needed to resume exactly from here."""
        return {
            "step": self.step, "best": self.best, "history": self.history, "model": self.model.state_dict(),
            "loss": self.loss.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "rng": torch.get_rng_state(),
            "feature_weight": self.loss.feature_weight, "sums": self.sums,
        }  # fmt: skip

    def save(self, out: Path) -> None:
        """Write the checkpoint and the history."""
        state = self.state()
        with atomic_path(out / "checkpoint.pt") as temporary:
            torch.save(state, temporary)
        write_json(out / "history.json", self.history)

    def restore(self, saved: dict) -> None:
        """Take over everything from a checkpoint, the state of torch's random numbers included."""
        self.model.load_state_dict(saved["model"])
        if self.average is not self.model:
            self.average.load_state_dict(saved["average"])
        self.loss.load_state_dict(saved["loss"])
        self.loss.feature_weight = saved["feature_weight"]
        self.optimiser.load_state_dict(saved["optimiser"])
        torch.set_rng_state(saved["rng"])
        self.step, self.best, self.history, self.sums = (saved[k] for k in ("step", "best", "history", "sums"))


def open_run(out: Path, config: Any, resume: bool, may_change: set[str]) -> dict | None:
    """The checkpoint to resume from, or None for a new run.

    Args:
        out: folder of the run.
        config: a frozen dataclass, compared with the one the folder holds; a field that is newer than the run counts
            as its default there.
        resume: whether to resume it.
        may_change: fields that may differ when a run is resumed.

    Raises:
        ConfigError: the folder holds a run and ``resume`` is False, or the run there was asked for otherwise.
    """
    if (out / "config.json").is_file():
        if not resume:
            raise ConfigError(f"{out} already holds a run: resume it, or choose another folder")
        old = json.loads((out / "config.json").read_text(encoding="utf-8"))
        now, default = _record(config), _defaults(config)
        old = {**default, **old, "mix": {**default["mix"], **old.get("mix", {})}}
        differing = [k for k in now if k not in may_change and old.get(k) != now[k]]
        if differing:
            key = differing[0]
            raise ConfigError(
                f"{out}: the run there has {key} = {old.get(key)!r}, asked for {now[key]!r}; "
                "resume with the same config or choose another folder"
            )
    checkpoint = out / "checkpoint.pt"
    return torch.load(checkpoint, map_location="cpu", weights_only=True) if resume and checkpoint.is_file() else None


def write_config(out: Path, config: Any) -> None:
    """Write ``config.json``."""
    write_json(out / "config.json", dataclasses.asdict(config))


def _record(config: Any) -> dict:
    """As it comes back from a JSON file: pairs as lists."""
    return json.loads(json.dumps(config, default=dataclasses.asdict))


def _defaults(config: Any) -> dict:
    """Those fields that have a default, with it."""
    fields = [f for f in dataclasses.fields(config) if f.default is not f.default_factory]  # MISSING twice: no default
    missing = dataclasses.MISSING
    # a field has a default or a factory, as filtered above
    return _record({f.name: f.default if f.default is not missing else f.default_factory() for f in fields})  # pyright: ignore[reportCallIssue]
