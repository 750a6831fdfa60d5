"""Lesions: a part of a trained network is bypassed, which says how much this network leans on it.

An ablation asks another question: it trains a network that never had the part. Source: ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn

from dccrn_lib.networks.uformer.conformer import DILATED_BLOCKS
from dccrn_lib.networks.uformer.model import Uformer
from dccrn_lib.networks.uformer.streams import Fusion
from dccrn_lib.runtime.errors import ConfigError


def stage_names(model: Uformer) -> list[str]:
    """Names of the conformer's stages in order, as they run: 12 with attention, 10 without."""
    attention = ["time attention", "frequency attention"] if model.config.attention else []
    dilated = [f"dilated {k}" for k in range(DILATED_BLOCKS)]
    return ["feed-forward 1", *attention, *dilated, "feed-forward 2"]


@contextlib.contextmanager
def lesion(model: Uformer, part: str) -> Iterator[Uformer]:
    """Bypass a part of a trained network while the block runs.

    Args:
        model: left as it was afterwards.
        part: "fusion" (all of them), a name of :func:`stage_names`, or the beginning of several ("dilated").
            A bypassed stage hands its input on in both streams; the fusion behind it stays.

    Raises:
        ConfigError: no such part.
    """
    names = stage_names(model)
    if part == "fusion":
        modules: list[nn.Module] = [m for m in model.modules() if isinstance(m, Fusion)]
    else:
        hit = [i for i, name in enumerate(names) if name.startswith(part)]
        modules = [s[i] for s in (model.conformer.complex_stages, model.conformer.magnitude_stages) for i in hit]
    if not modules:
        raise ConfigError(f"no part {part!r} to bypass; known: fusion, {', '.join(names)}")

    def hand_on(_module: nn.Module, inputs: Any, _output: Any) -> Any:
        return inputs if len(inputs) > 1 else inputs[0]

    handles = [module.register_forward_hook(hand_on) for module in modules]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()
