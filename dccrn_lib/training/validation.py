"""Validation: the fixed valid mixtures, and how well a network does on them."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.losses import compressed_spectral_loss, si_snr_db
from dccrn_lib.runtime.distributed import Processes
from dccrn_lib.training.config import TrainConfig

#: Seed of the valid mixtures, the same whatever the seed of the run: all runs are validated on the same ones.
VALID_SEED = 1_000_003


def valid_mixtures(config: TrainConfig) -> MixtureDataset:
    """The mixtures that a run is validated on: of the valid split, without augmentation."""
    mix = dataclasses.replace(config.mix, speed_probability=0.0, equaliser_probability=0.0)
    return MixtureDataset(
        config.speech, config.noise, config.rir or None, mix, VALID_SEED, config.valid_mixtures, "valid"
    )


def validate(model: nn.Module, dataset: MixtureDataset, config: TrainConfig, ranks: Processes) -> dict[str, float]:
    """SI-SNR of the model and of the input on the fixed valid mixtures, in dB, and the gain of the output."""
    device = next(model.parameters()).device
    training, sums = model.training, torch.zeros(4, dtype=torch.float64)
    ranks.copy_from_first(model.buffers())  # what is validated is what will be saved
    model.eval()
    with torch.no_grad():
        for i in range(ranks.rank, config.valid_mixtures, ranks.world):
            item = dataset[i]
            noisy, clean = item["noisy"][None].to(device), item["clean"][None].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.amp):
                estimate = model(noisy)
            gain = (estimate * clean).sum() / (clean * clean).sum()
            values = [si_snr_db(estimate, clean).mean(), si_snr_db(noisy, clean).mean(), gain]
            values.append(compressed_spectral_loss(estimate, clean))
            sums += torch.tensor([float(v) for v in values], dtype=torch.float64)
    model.train(training)
    means = [ranks.mean(float(s), device) * ranks.world / config.valid_mixtures for s in sums]
    return dict(zip(("si_snr_db", "noisy_si_snr_db", "gain", "spectral"), means, strict=True))
