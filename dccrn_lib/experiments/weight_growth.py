"""How large a network's matrices have grown, and whether that size is more than noise.

    python -m dccrn_lib experiment weight-growth distil_dccrn_alone distil_dccrn uformer_best

A matrix of independent numbers of size s, (rows, columns), has a largest singular value near s (sqrt(rows) +
sqrt(columns)). What a network has learnt stands out of that: a few directions are stretched far more than chance would
stretch them. A ratio near 1 says that the matrix is as large as it is by random steps alone. Muon makes each step as
large as the last, whatever the gradient: at a constant rate the random part grows with the square root of the steps,
and in an LSTM nothing takes it back.

Sources: Marchenko & Pastur 1967 for the largest singular value; the ratio is ours.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dccrn_lib.networks.presets import build_from_config
from dccrn_lib.networks.weights import find_weights, load_model, read_card
from dccrn_lib.results.records import require_not_read, save_result
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.training.muon import is_matrix

#: Kind -> how it is called in the table.
KINDS = {"recurrent": "LSTM, state", "input": "LSTM, input", "kernel": "convolutions", "linear": "linear layers"}


class Size(NamedTuple):
    """Of the matrices of one kind.

    Attributes:
        rms: root mean square of all their elements.
        ratio: largest singular value over that of random numbers of the same size, mean over the matrices.
        count: matrices.
    """

    rms: float
    ratio: float
    count: int


def kind_of(name: str, parameter: Tensor) -> str:
    """The kind of a matrix, a key of ``KINDS``, by its name in the network and its dimensions."""
    if "weight_hh" in name:
        return "recurrent"
    if "weight_ih" in name:
        return "input"
    return "linear" if parameter.dim() == 2 else "kernel"


def ratio(matrix: Tensor) -> float:
    """Largest singular value of (rows, columns), over what random numbers of its root mean square would have; 0 for zeros.

    >>> noise = torch.randn(400, 100, generator=torch.Generator().manual_seed(0))
    >>> round(ratio(noise), 1)
    1.0
    >>> round(ratio(torch.ones(400, 100)), 1)  # one direction holds everything
    6.7
    """
    rows, columns = matrix.shape
    size = matrix.square().mean().sqrt()
    if not size:
        return 0.0
    return float(torch.linalg.matrix_norm(matrix, 2) / (size * (rows**0.5 + columns**0.5)))


def sizes(named_parameters: Iterable[tuple[str, Tensor]]) -> dict[str, Size]:
    """Of the matrices among these parameters, those that Muon takes, by kind; kinds that do not occur are left out.

    Args:
        named_parameters: as of ``nn.Module.named_parameters``; kernels (out, ...) count as (out, rest).
    """
    found: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for name, parameter in named_parameters:
        if is_matrix(parameter):
            found[kind_of(name, parameter)].append(parameter.detach().float().reshape(len(parameter), -1))
    return {
        kind: Size(
            float(torch.cat([m.flatten() for m in matrices]).square().mean().sqrt()),
            sum(ratio(m) for m in matrices) / len(matrices),
            len(matrices),
        )
        for kind, matrices in found.items()
        if matrices
    }


def publish(weights: Sequence[str], name: str = "weight_growth", folder: str | Path | None = None) -> Path:
    """Write ``<folder>/<name>.json``: a row for each weights, behind one of fresh weights of the same architecture.

    Args:
        weights: shipped names or paths.
        name: of the result.
        folder: results/ of the project when None.

    Raises:
        ConfigError: the same weights twice, or none; weights that are not finite; or the file to write is their card.
        WeightsError: no such weights, or damaged ones.
    """
    if not weights or len(set(weights)) != len(weights):
        raise ConfigError("name weights, each of them once, as: distil_dccrn uformer_best")
    for given in weights:
        require_not_read(name, folder, find_weights(given).with_suffix(".json"))
    rows, hashes, fresh = [], [], set()
    for given in weights:
        card, model = read_card(given), load_model(given)
        if not all(bool(p.isfinite().all()) for p in model.parameters()):
            raise ConfigError(f"{given}: its weights are not finite, the training diverged; leave it out")
        hashes.append(card["sha256"])
        if repr(model.config) not in fresh:
            fresh.add(repr(model.config))
            torch.manual_seed(0)
            rows.append(_row(f"fresh, as {given}", 0.0, build_from_config(model.config)))
        rows.append(_row(given, card.get("card", {}).get("hours_of_audio"), model))
    payload = {
        "title": "How large the matrices have grown, and how much of it is chance",
        "note": "Root mean square of all elements, and behind it the largest singular value over that of random numbers "
        "of the same size (mean over the matrices): 1 is what chance alone would give. Only matrices that Muon takes.",
        "command": f"python -m dccrn_lib experiment weight-growth {shlex.join(weights)}",
        "config": {"weights": dict(zip(weights, hashes, strict=True))},
        "seed": 0,
        "data_hash": "",
        "columns": ["weights", "hours of audio", *KINDS.values()],
        "rows": rows,
    }
    return save_result(name, payload, folder)


def _row(name: str, hours: float | None, model: nn.Module) -> dict:
    found = sizes(model.named_parameters())
    shown = {
        KINDS[kind]: f"{found[kind].rms:.3f} ({found[kind].ratio:.2f})" if kind in found else "-" for kind in KINDS
    }
    return {
        "weights": name,
        "hours of audio": hours,
        **shown,
        "values": {kind: size._asdict() for kind, size in found.items()},
    }
