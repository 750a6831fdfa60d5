"""From the plans of a batch to its mixtures, all at once, on any device that holds the corpus.

The steps are those of ``rendering``: pieces of int16 are gathered into rows, the speed is changed by a polyphase filter,
equalisers and rooms are products of spectra, levels are row by row. Nothing is read on the host in between, so that the
work is only queued on a GPU. Both renderings agree up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, floor

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import firwin
from torch import Tensor

from dccrn_lib.corpus.decoded import DecodedCorpus
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.plan import EQUALISER_POINTS, MixturePlan
from dccrn_lib.corpus.plan_batch import Packer, Pieces, PlanBatch
from dccrn_lib.corpus.rendering import HIGHEST_PEAK, octaves_of

_FILTER_REACH = 10  # zero crossings of the resampler's filter to each side, and its window: scipy's resample_poly
_FILTER_WINDOW = ("kaiser", 5.0)


class DeviceCorpus:
    """A decoded corpus held on a device as int16.

    Args:
        entries: recordings by the numbers that plans hold (``MixtureDataset.planner.entries``).
        decoded: the corpus on disk.
        samples: ``decoded.tensor()`` on the device, int16 (sample,): 115 MB an hour. Several of these may share it.
    """

    def __init__(self, entries: Sequence[Entry], decoded: DecodedCorpus, samples: Tensor) -> None:
        self.pack, self.samples, self.device = Packer(entries, decoded), samples, samples.device

    def gather(self, pieces: Pieces, rows: int, samples: int) -> Tensor:
        """Pieces in their places, zeros elsewhere: float32 (row, sample) of shape (rows, samples)."""
        flat = torch.zeros(rows * samples, device=self.device)
        if self.device.type == "cpu":  # one copy for each piece; on a GPU all of them in one
            numbers = (pieces.source.tolist(), pieces.target.tolist(), pieces.count.tolist(), pieces.scale.tolist())
            for begin, at, count, scale in zip(*numbers, strict=True):
                flat[at : at + count] = self.samples[begin : begin + count]
                flat[at : at + count] *= scale / 32767
            return flat.view(rows, samples)
        # number of each sample within all pieces, and the pieces it belongs to
        each = torch.arange(pieces.total, device=self.device)
        before = pieces.count.cumsum(0) - pieces.count
        numbers = torch.stack([pieces.source - before, pieces.target - before])  # (2, piece)
        source, target = torch.repeat_interleave(numbers, pieces.count, dim=1, output_size=pieces.total) + each
        scale = torch.repeat_interleave(pieces.scale, pieces.count, output_size=pieces.total)
        flat[target] = self.samples[source].float() / 32767 * scale
        return flat.view(rows, samples)


@torch.no_grad()
def render_batch(plans: Sequence[MixturePlan] | PlanBatch, corpus: DeviceCorpus) -> tuple[Tensor, Tensor]:
    """The mixtures of a batch.

    Args:
        plans: all of one length; or what ``corpus.pack`` made of them.
        corpus: that they were drawn from.

    Returns:
        (noisy, clean), each float32 (batch, sample) on the device of the corpus. A mixture whose speech or noise is silent,
        which no planner draws, is NaN.
    """
    batch = (plans if isinstance(plans, PlanBatch) else corpus.pack(plans)).to(corpus.device)
    rows = corpus.gather(batch.pieces, batch.rows, batch.samples)
    for (up, down), chosen in batch.speeds.items():
        rows[chosen] = resample(rows[chosen], up, down)
    if len(batch.equalised):
        rows[batch.equalised] = equalise(rows[batch.equalised], batch.points_db)
    clean = reverberant = rows[: batch.mixtures]
    if len(batch.reverberant):
        clean, reverberant = clean.clone(), reverberant.clone()
        target, whole = _reverberate(clean[batch.reverberant], batch, corpus)
        clean[batch.reverberant], reverberant[batch.reverberant] = target, whole
    noise = _noise(rows, batch)
    noisy = reverberant + noise * _ratio(reverberant, noise, batch.snr_db)
    noisy = noisy + batch.offset * _rms(noisy)
    peak = torch.maximum(noisy.abs().amax(-1, keepdim=True), clean.abs().amax(-1, keepdim=True))
    scale = torch.minimum(10 ** (batch.level_dbfs / 20) / _rms(noisy), HIGHEST_PEAK / peak)
    return noisy * scale, clean * scale


def _power(x: Tensor) -> Tensor:
    """(row, sample) -> (row, 1), the means left out."""
    return (x - x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True)


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(-1, keepdim=True).sqrt()


def _ratio(clean: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """What brings the noise to that ratio: (row, sample) twice, (row, 1) -> (row, 1)."""
    return (_power(clean) / _power(noise) / 10 ** (snr_db / 10)).sqrt()


def _noise(rows: Tensor, batch: PlanBatch) -> Tensor:
    """One noise, two at their ratio, or a babble of equally loud voices, for every mixture: (mixture, sample)."""
    weight = torch.ones(batch.rows, 1, device=rows.device)
    if len(batch.voices):
        weight[batch.voices] = _power(rows[batch.voices]).rsqrt()
    if len(batch.second):
        weight[batch.second] = _ratio(rows[batch.second_of], rows[batch.second], batch.second_snr_db)
    noise = torch.zeros(batch.mixtures, batch.samples, device=rows.device)
    for numbers, owners in batch.layers:  # no mixture twice in a layer: the order of the sum is fixed
        noise.index_add_(0, owners, rows[numbers] * weight[numbers])
    return noise


def equalise(x: Tensor, points_db: Tensor) -> Tensor:
    """Smooth gain over frequency, as ``rendering.equalise``: (row, sample), (row, point) -> (row, sample)."""
    left, weight = _between_points(x.shape[-1], x.device)
    gain_db = torch.lerp(points_db[:, left], points_db[:, left + 1], weight)  # (row, bin)
    return torch.fft.irfft(torch.fft.rfft(x) * 10 ** (gain_db / 20), n=x.shape[-1])


@lru_cache(maxsize=8)
def _between_points(samples: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of every bin: the point below it, and how far it is to the next one, in [0, 1]; kept on the device."""
    octaves, points = octaves_of(samples)
    left = np.clip(np.searchsorted(points, octaves, side="right") - 1, 0, EQUALISER_POINTS - 2)
    weight = (octaves - points[left]) / (points[left + 1] - points[left])
    return torch.from_numpy(left).to(device), torch.from_numpy(weight.astype(np.float32)).to(device)


def resample(x: Tensor, up: int, down: int) -> Tensor:
    """Speed changed by down / up, cut or zero-padded to the old length: (row, sample) -> same.

    y(m) = sum over n of h(m down - n up) x(n), with the filter h of ``scipy.signal.resample_poly``. The outputs
    m = q up + p of one q come from the same stretch of the input: a convolution with ``up`` kernels and stride ``down``.
    """
    samples = x.shape[-1]
    wanted = min(ceil(samples * up / down), samples)
    kernels, first = _phases(up, down, x.device)
    steps, taps = ceil(wanted / up), kernels.shape[-1]
    needed = (steps - 1) * down + taps + first  # samples of the input, from 0 on
    padded = F.pad(x[:, :needed], (-first, max(needed - samples, 0)))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        y = F.conv1d(padded[:, None], kernels[:, None], stride=down)  # (row, up, step)
    y = y.transpose(1, 2).flatten(1)[:, :wanted]  # (row, wanted)
    return F.pad(y, (0, samples - wanted))


@lru_cache(maxsize=16)
def _phases(up: int, down: int, device: torch.device) -> tuple[Tensor, int]:
    """Kernels (up, tap) of the outputs p = 0 .. up - 1, on the device; the input sample of their first tap (negative)."""
    half = _FILTER_REACH * max(up, down)
    # a window may be a pair of name and parameter; scipy's stubs know names only
    h = firwin(2 * half + 1, 1 / max(up, down), window=_FILTER_WINDOW) * up  # pyright: ignore[reportArgumentType]
    first, last = ceil(-half / up), floor(((up - 1) * down + half) / up)
    index = half + np.arange(up)[:, None] * down - np.arange(first, last + 1)[None] * up  # (up, tap)
    kernels = np.where((index >= 0) & (index < len(h)), h[index.clip(0, len(h) - 1)], 0.0)
    return torch.from_numpy(kernels.astype(np.float32)).to(device), first


def _reverberate(x: Tensor, batch: PlanBatch, corpus: DeviceCorpus) -> tuple[Tensor, Tensor]:
    """(target with the early part of the room, speech with the whole room): (room, sample) -> the same twice."""
    size = batch.room_samples
    whole = corpus.gather(batch.room_pieces, len(x), size)
    time = torch.arange(size, device=x.device)
    early = whole * ((time < batch.early) | (time >= size - batch.before))
    spectrum = torch.fft.rfft(x, n=size)
    samples = x.shape[-1]
    target, reverberant = (torch.fft.irfft(spectrum * torch.fft.rfft(r), n=size)[:, :samples] for r in (early, whole))
    scale = (_rms(x).square() / _rms(target).square().clamp_min(1e-12)).sqrt()
    return target * scale, reverberant * scale
