"""Weights with their cards, and the checkpoint and config of a run: damaged, exchanged, and pickles that would act."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from hypothesis import strategies as st
from torch import nn

from dccrn_lib.networks.dccrn import DCCRN, DCCRNConfig
from dccrn_lib.networks.weights import load_model, read_card, save_model
from dccrn_lib.training.config import MAY_CHANGE, TrainConfig
from dccrn_lib.training.run_folder import Run, open_run, write_config
from tests.fuzzing.mutations import damaged, json_text
from tests.fuzzing.running import Target


@lru_cache
def original() -> tuple[bytes, dict]:
    """Tensors and card of a network of the smallest size."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_model(
            DCCRN(DCCRNConfig(channels=(2,) * 6, rnn_units=2)), Path(folder) / "m", {"licence": "CC0-1.0"}
        )
        return path.read_bytes(), json.loads(path.with_suffix(".json").read_text())


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """(tensors, card); the hash in the card fits, so that the tensors themselves are looked at, or does not."""
    data, card = original()
    if draw(st.booleans()):
        return data, draw(json_text(card))
    data = draw(damaged([data]))
    digest = hashlib.sha256(data).hexdigest() if draw(st.integers(0, 3)) else card["sha256"]
    return data, json.dumps({**card, "sha256": digest}).encode()


def take_weights(given: tuple[bytes, bytes], folder: Path) -> None:
    """Load the network."""
    data, card = given
    (folder / "m.safetensors").write_bytes(data)
    (folder / "m.json").write_bytes(card)
    read_card(folder / "m")
    model = load_model(folder / "m.safetensors")
    assert model(torch.zeros(1, 400)).shape == (1, 400)


class _Act:
    """A pickle of it writes a file when it is loaded."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch ../above-by-pickle; touch out/by-pickle",)


def _run() -> Run:
    model, loss = nn.Linear(2, 2), nn.Module()
    loss.feature_weight = 0.1
    history = {"balance": {}, "train": [], "valid": [], "skipped": [], "seconds": 0.0}
    return Run(model, model, loss, torch.optim.Adam(model.parameters()), history)


CONFIG = TrainConfig(out="o", speech="s", noise="n")


@lru_cache
def checkpoints() -> list[bytes]:
    """A checkpoint, others that hold something else, one whose pickle would act."""
    run = _run()
    run.model(torch.ones(1, 2)).sum().backward()
    run.optimiser.step()
    state = run.state()
    less = {name: value for name, value in state.items() if name != "optimiser"}
    found = []
    for value in (
        state,
        less,
        {**state, "step": "x"},
        {**state, "model": {}},
        [],
        torch.zeros(3),
        {**state, "act": _Act()},
    ):
        data = io.BytesIO()
        torch.save(value, data)
        found.append(data.getvalue())
    return found


@st.composite
def runs(draw: st.DrawFn) -> tuple[bytes, bytes | None]:
    """(checkpoint, config.json or None for the right one)."""
    data = draw(st.sampled_from(checkpoints()) | damaged(checkpoints()) | damaged(checkpoints()))
    config = json.loads(json.dumps(CONFIG.__dict__, default=lambda value: value.__dict__))
    return data, draw(json_text(config)) if draw(st.integers(0, 3)) == 0 else None


def take_checkpoint(given: tuple[bytes, bytes | None], folder: Path) -> None:
    """Resume from it."""
    data, config = given
    out = folder / "out"
    write_config(out, CONFIG)
    if config is not None:
        (out / "config.json").write_bytes(config)
    (out / "checkpoint.pt").write_bytes(data)
    saved = open_run(out, CONFIG, True, MAY_CHANGE)
    assert saved is not None and not (out / "by-pickle").exists()
    _run().restore(saved, out / "checkpoint.pt")


WEIGHTS = Target(
    "weights", st.deferred(pairs), take_weights, lambda: (original()[0], json.dumps(original()[1]).encode())
)
CHECKPOINTS = Target("checkpoints", st.deferred(runs), take_checkpoint, lambda: (checkpoints()[0], None))
