"""From a feature map to an attention distribution, and the distance of two of them.

Features are real tensors (batch, chan, freq, frame); complex ones have their real half first, so that the mean over
chan of x^2 is half the mean of |A|^2, a factor that every normalisation removes.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dccrn_lib.runtime.errors import ConfigError, nearest_name

EPS = 1e-8
NORMALISATIONS = ("sum", "softmax")


class FrameGrid(Protocol):
    """Where the frames of a network lie in time: what is asked of its STFTConfig."""

    @property
    def window_length(self) -> int:
        """Samples of a frame."""
        ...

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        ...


def channel_attention(feature: Tensor, power: float = 2.0) -> Tensor:
    """Q(f, t) = mean over chan of |A|^p: (batch, chan, freq, frame) -> (batch, freq, frame).

    Real and imaginary parts are channels of their own here. For p = 2 that is half the mean of the complex |A|^2; for
    any other p, |re|^p + |im|^p is no multiple of |A|^p and changes when the phase turns.

    Args:
        feature: (batch, chan, freq, frame), of any floating type; the map is float32.
        power: p > 0.

    Source: Zagoruyko and Komodakis 2017, eq. 1 (mean instead of sum over chan: a factor).
    """
    if power == 2:
        return _MeanSquare.apply(feature)
    # |x| is kept off 0, so that its gradient is finite
    return (feature.float().abs() + EPS).pow(power).mean(dim=1)


class _MeanSquare(torch.autograd.Function):
    """q(f, t) = 1/C sum over chan of x^2 in float32, dq/dx = 2 x / C: one pass backward, in the type of x."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.float().square().mean(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope = (grads[0] / x.shape[1] * 2).unsqueeze(1)
        # float16 ends at 65,504: the slope of a quiet map lies beyond it, its product with x does not
        if x.dtype == torch.float16:
            return (x.float() * slope).to(x.dtype)
        return x * slope.to(x.dtype)


def frequency_attention(feature: Tensor, power: float = 2.0) -> Tensor:
    """q(f) = mean over frame of Q(f, t): (batch, chan, freq, frame) -> (batch, freq). The frame rate is gone."""
    return channel_attention(feature, power).mean(dim=-1)


def log_distribution(q: Tensor, normalisation: str = "sum", temperature: float = 1.0) -> Tensor:
    """log P along the last axis.

    Args:
        q: non-negative, (..., n).
        normalisation: "sum": P = q / sum q; "softmax": P = softmax(q / ||q||_2 / temperature).
        temperature: of the softmax. At 1, an L2-normalised vector gives a nearly flat P.

    Returns:
        (..., n), in nats.

    Raises:
        ConfigError: unknown normalisation.

    >>> log_distribution(torch.tensor([1.0, 3.0])).exp()
    tensor([0.2500, 0.7500])
    """
    if normalisation == "sum":
        # log P = log(q + eps m) - log sum(q + eps m), with m = mean q: scale-free, and finite for an empty bin
        q = q + EPS * q.mean(-1, keepdim=True) + 1e-20
        return q.log() - q.sum(-1, keepdim=True).log()
    if normalisation == "softmax":
        norm = (q.square().sum(-1, keepdim=True) + 1e-20).sqrt()
        return F.log_softmax(q / norm / temperature, dim=-1)
    raise ConfigError(f"unknown normalisation {normalisation!r}; {nearest_name(normalisation, list(NORMALISATIONS))}")


def kl_divergence(log_teacher: Tensor, log_student: Tensor) -> Tensor:
    """KL(P_teacher || P_student) = sum P_t (log P_t - log P_s) over the last axis, mean over all others, in nats.

    Args:
        log_teacher, log_student: log P, both (..., n).

    The reduction matters: on one tensor "sum", "batchmean" and "mean" of torch's kl_div differ by the number of rows
    and of elements, a factor beyond 10,000. Here a value does not depend on batch or size of the maps.

    >>> kl_divergence(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log())
    tensor(0.1438)
    """
    return (log_teacher.exp() * (log_teacher - log_student)).sum(-1).mean()


def align_frames(x: Tensor, from_stft: FrameGrid, to_stft: FrameGrid, frames: int) -> Tensor:
    """Bring frames of one hop to another by linear interpolation, so that their centres in time agree.

    Args:
        x: (..., frame) at ``from_stft``'s hop.
        from_stft, to_stft: STFTConfig of the two networks. Frame k is centred at k * hop + hop - window / 2.
        frames: number of frames wanted.

    Returns:
        (..., frames); outside the first and last centre the nearest frame is kept.
    """
    k = torch.arange(frames, device=x.device, dtype=torch.float32)
    centre = (k + 1) * to_stft.hop_length - to_stft.window_length / 2  # samples
    position = (centre + from_stft.window_length / 2) / from_stft.hop_length - 1
    position = position.clamp(0, x.shape[-1] - 1)
    left = position.floor().long().clamp_max(max(x.shape[-1] - 2, 0))
    right = (left + 1).clamp_max(x.shape[-1] - 1)
    weight = position - left
    return x[..., left] * (1 - weight) + x[..., right] * weight
