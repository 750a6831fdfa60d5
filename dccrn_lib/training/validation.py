"""Validation: the fixed valid mixtures, and how well a network does on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from dccrn_lib.corpus.decoded import DecodedCorpus
from dccrn_lib.corpus.mixing import MixConfig, MixtureDataset
from dccrn_lib.losses import compressed_spectral_loss, si_snr_db
from dccrn_lib.networks.modes import evaluating
from dccrn_lib.runtime.distributed import Processes
from dccrn_lib.runtime.errors import ConfigError, nearest_name
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.objective import autocast

#: Seed of the valid mixtures, the same whatever the seed of the run: all runs are validated on the same ones.
VALID_SEED = 1_000_003

#: Length in s of the mixtures of the valid set "plain", where those of the training have at least 1 s.
PLAIN_SECONDS = 4.0

#: What a network is measured by, in this order.
MEASURES = ("si_snr_db", "noisy_si_snr_db", "gain", "spectral")


def _as_trained(mix: MixConfig) -> MixConfig:
    return replace(mix, speed_probability=0.0, equaliser_probability=0.0)


def _plain(mix: MixConfig) -> MixConfig:
    seconds = PLAIN_SECONDS if mix.segment_seconds >= 1 else mix.segment_seconds
    return replace(_as_trained(mix), segment_seconds=seconds, wide_level_probability=0.0, offset_probability=0.0)


#: The two valid sets, by name.
VALID_SETS = {"as_trained": _as_trained, "plain": _plain}


def valid_mixtures(
    config: TrainConfig, kind: str = "as_trained", decoded: DecodedCorpus | None = None
) -> MixtureDataset:
    """The mixtures that a run is validated on, from the valid split, with ``VALID_SEED``.

    Args:
        config: manifests, ``valid_mixtures`` and ``mix``.
        kind: "as_trained" (``train``): mixed as in the training and as long, levels far from the usual and offsets
            included, but with neither another speed nor an equaliser. "plain" (``campaign``): without those levels and
            offsets too, and :data:`PLAIN_SECONDS` long (as long as in the training where that is below 1 s).
        decoded: the corpus, if it is decoded already; the files are read otherwise.

    SI-SNR of one set cannot be compared to that of the other.

    Raises:
        ConfigError: another kind.
    """
    if kind not in VALID_SETS:
        raise ConfigError(f"unknown valid set {kind!r}; {nearest_name(kind, list(VALID_SETS))}")
    mix = VALID_SETS[kind](config.mix)
    sources = (config.speech, config.noise, config.rir or None)
    return MixtureDataset(*sources, mix, VALID_SEED, config.valid_mixtures, "valid", decoded=decoded)


def valid_batches(
    mixtures: MixtureDataset, device: torch.device, size: int = 1, ranks: Processes | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The mixtures of this rank on the device, ``size`` at a time: (noisy, clean), each (batch, sample)."""
    ranks = ranks or Processes()
    mine = range(ranks.rank, len(mixtures), ranks.world)
    for first in range(0, len(mine), size):
        items = [mixtures[i] for i in mine[first : first + size]]
        noisy, clean = (torch.stack([item[key] for item in items]).to(device) for key in ("noisy", "clean"))
        yield noisy, clean


def validate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], amp: bool, ranks: Processes | None = None
) -> dict[str, float]:
    """How a network does on valid mixtures, in eval mode; its modules are left in the modes that they were in.

    Args:
        model: waveform in, waveform out.
        batches: of this rank, from :func:`valid_batches`.
        amp: bfloat16 autocast.
        ranks: that validate together, each on its batches; alone when None.

    Returns:
        Means over all mixtures: SI-SNR of the output and of the input in dB, gain of the output, and its compressed
        spectral distance, under the names of :data:`MEASURES`.
    """
    ranks, count = ranks or Processes(), 0
    device, sums = next(model.parameters()).device, torch.zeros(len(MEASURES), dtype=torch.float64)
    ranks.copy_from_first(model.buffers())  # what is validated is what will be saved
    with torch.no_grad(), evaluating(model):
        for noisy, clean in batches:
            with autocast(device, amp):
                estimate = model(noisy)
            gain = (estimate * clean).sum(-1) / (clean * clean).sum(-1)
            spectral = compressed_spectral_loss(estimate, clean) * len(noisy)
            rows = [si_snr_db(estimate, clean).sum(), si_snr_db(noisy, clean).sum(), gain.sum(), spectral]
            sums += torch.stack(rows).cpu().double()
            count += len(noisy)
    sums, total = ([ranks.mean(float(s), device) * ranks.world for s in values] for values in (sums, [count]))
    return dict(zip(MEASURES, (s / total[0] for s in sums), strict=True))
