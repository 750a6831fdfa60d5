"""Which samples does an output sample depend on? Measured with NaN, and predicted by formula.

A NaN put at one input sample reaches exactly the output samples whose computation touches that sample,
through zero weights and zeros of the window too: the structural dependency, whatever the weights. (An impulse
measures less: it does not see where a window or a weight happens to be 0.)

Counting: a look-ahead of 0 samples means that output n depends on inputs up to and including n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from dccrn_lib.networks.modes import evaluating
from dccrn_lib.runtime.errors import ConfigError

MARGINS = (16, 1024)  # hops of signal on the probed side; a reach beyond the last one counts as unbounded
ROWS = 16  # alignments in one batch


def measure_lookahead(model: nn.Module, alignments: Sequence[int] | None = None) -> int | float:
    """Samples of future that an output sample depends on, for the worst position of the sample within a hop.

    Args:
        model: with ``stft.config`` and waveform in, waveform out; the modes of its modules are restored afterwards.
        alignments: positions within a hop to probe, 0 .. hop - 1; None = all of them.

    Returns:
        Samples; math.inf if the dependency reaches the beginning of the signal whatever its length.

    Raises:
        ConfigError: an alignment outside the hop.

    >>> from dccrn_lib.networks.presets import build_model
    >>> measure_lookahead(build_model("distil_dccrn_mini"), alignments=[0, 99])
    999
    """
    return _measure_reach(model, alignments)[1]


def measure_receptive_field(
    model: nn.Module, alignments: Sequence[int] | None = None
) -> tuple[int | float, int | float]:
    """Samples of (past, future) that an output sample depends on; the past of an LSTM is math.inf.

    Arguments and errors as :func:`measure_lookahead`.
    """
    future = _measure_reach(model, alignments)[1]
    return _measure_reach(model, alignments, past=True)[0], future


def expected_lookahead(model: nn.Module) -> int | float:
    """Samples of future by formula.

    A frame that starts at sample s covers s .. s + win - 1, so without any look-ahead in frames the first
    sample of an output frame already depends on win - 1 later ones; each frame of look-ahead adds a hop.

    - DCCRN: (win - 1) + L * hop, where L = one frame for each decoder layer (6), or 0.
    - Uformer: math.inf, as its time attention sees every frame; without attention (win - 1) + L * hop, where L =
      the sum over the dilated blocks of max(2^k, 2^(7 - k)) = 480 frames (4.8 s).

    Raises:
        ConfigError: the network does not say its ``lookahead_frames``, as DCCRN and Uformer do.
    """
    frames = getattr(model, "lookahead_frames", None)
    if frames is None:
        raise ConfigError(f"no look-ahead formula for {type(model).__name__}; use measure_lookahead")
    stft = cast(Any, model).config.stft
    return (stft.window_length - 1) + frames * stft.hop_length


def _measure_reach(model: Any, alignments: Sequence[int] | None, past: bool = False) -> tuple[int | float, int | float]:
    """How far a NaN spreads (after, before) its sample; only the side asked for has room to tell."""
    hop = model.stft.config.hop_length
    positions = list(range(hop)) if alignments is None else list(alignments)
    if not positions or min(positions) < 0 or max(positions) >= hop:
        raise ConfigError(f"alignments must lie in 0 .. {hop - 1}, got {positions}")
    with evaluating(model):
        for margin in MARGINS:
            # One alignment tells whether the margin is long enough; then all are measured.
            after, before = _spread(model, positions[:1], margin * hop, past)
            if math.isinf(after if past else before):
                continue
            batches = [positions[i : i + ROWS] for i in range(0, len(positions), ROWS)]
            spreads = [_spread(model, batch, margin * hop, past) for batch in batches]
            return max(s[0] for s in spreads), max(s[1] for s in spreads)
    return math.inf, math.inf


def _spread(model: Any, positions: Sequence[int], margin: int, past: bool) -> tuple[int | float, int | float]:
    """Largest (after, before) distance of a NaN output over the positions; math.inf at the border."""
    hop = model.stft.config.hop_length
    lead, tail = (hop, margin) if past else (margin, hop)
    samples = lead + hop + tail
    device = next(model.parameters()).device
    x = torch.zeros(len(positions), samples, device=device)
    at = lead + torch.tensor(positions, device=device)  # (batch,)
    x[torch.arange(len(positions), device=device), at] = math.nan
    with torch.no_grad():
        hit = model(x).isnan()  # (batch, sample)
    if not hit.any(dim=1).all():
        raise ConfigError(f"{type(model).__name__} lets a NaN vanish; its dependency cannot be probed")
    order = torch.arange(samples, device=device)
    first = torch.where(hit, order, samples).amin(dim=1)
    last = torch.where(hit, order, -1).amax(dim=1)
    before = math.inf if (first == 0).any() else int((at - first).max())
    after = math.inf if (last == samples - 1).any() else int((last - at).max())
    return after, before
