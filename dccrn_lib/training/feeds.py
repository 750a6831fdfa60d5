"""What the networks of a lockstep see: batches and valid mixtures in tensors that stay where they are on the device."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dccrn_lib.corpus.decoded import DecodedCorpus
from dccrn_lib.corpus.loading import Batches
from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.losses import compressed_spectral_loss, si_snr_db
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.mixtures import DeviceBatches
from dccrn_lib.training.trainee import Trainee, autocast
from dccrn_lib.training.validation import VALID_SEED

VALID_SECONDS = 4.0


class Feed:
    """Batches of one seed, in tensors that stay where they are: ``noisy``, ``clean`` (batch, sample).

    Args:
        config: says how to mix.
        decoded: the corpus.
        device: where the networks are.
        workers: processes that mix, or only plan where the device renders.
        start: the first step.
        held: the samples of the corpus on the device, if it renders.
    """

    def __init__(
        self,
        config: TrainConfig,
        decoded: DecodedCorpus,
        device: torch.device,
        workers: int,
        start: int,
        held: Tensor | None = None,
    ) -> None:
        dataset = MixtureDataset(
            config.speech, config.noise, config.rir or None, config.mix, config.seed, config.epoch_mixtures, "train",
            decoded=decoded,
        )  # fmt: skip
        shape = (config.batch_size, dataset.samples)
        self.noisy, self.clean = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        self.cuda = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.cuda else None
        self.ready = torch.cuda.Event() if self.cuda else None
        self.waited = 0.0  # seconds for the workers
        indices, prefetch = itertools.count(start * config.batch_size), 4 if workers else None
        self.rendered: DeviceBatches | None = None
        if held is not None:
            self.rendered = DeviceBatches(
                dataset, decoded, held, config.batch_size, indices, workers, prefetch_factor=prefetch
            )
        else:
            self.batches: Iterator[tuple[Tensor, Tensor]] = Batches(
                dataset, config.batch_size, indices, workers, _pair, pin_memory=self.cuda, prefetch_factor=prefetch
            )

    def advance(self, after: Sequence[torch.cuda.Event]) -> None:
        """Bring the next batch to the device, once the work on the last one is done."""
        began = time.monotonic()
        plans = self.rendered.plan() if self.rendered else None
        pair = next(self.batches) if plans is None else None
        self.waited += time.monotonic() - began
        with torch.cuda.stream(self.stream):  # of no effect without one
            # while the networks work on the last batch
            noisy, clean = pair or self.rendered.render(plans)  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]
            for event in after:
                assert self.stream is not None
                self.stream.wait_event(event)
            self.noisy.copy_(noisy, non_blocking=True)
            self.clean.copy_(clean, non_blocking=True)
            if self.ready is not None:
                self.ready.record(self.stream)


def _pair(items: list[dict]) -> tuple[Tensor, Tensor]:
    return torch.stack([i["noisy"] for i in items]), torch.stack([i["clean"] for i in items])


class ValidSet:
    """The fixed valid mixtures, held on the device."""

    def __init__(self, config: TrainConfig, decoded: DecodedCorpus, device: torch.device) -> None:
        seconds = VALID_SECONDS if config.mix.segment_seconds >= 1 else config.mix.segment_seconds
        mix = replace(
            config.mix, segment_seconds=seconds, speed_probability=0.0, equaliser_probability=0.0,
            wide_level_probability=0.0, offset_probability=0.0,
        )  # fmt: skip
        mixtures = MixtureDataset(
            config.speech, config.noise, config.rir or None, mix, VALID_SEED, config.valid_mixtures, "valid",
            decoded=decoded,
        )  # fmt: skip
        items = [mixtures[i] for i in range(config.valid_mixtures)]
        self.noisy, self.clean = (t.to(device) for t in _pair(items))

    def score(self, trainee: Trainee) -> dict[str, float]:
        """As :meth:`score_network`, of the averaged weights of a network in training."""
        if trainee.average is not trainee.model:
            return self.score_network(trainee.finished_average(), trainee.config.amp)
        found = self.score_network(trainee.model.eval(), trainee.config.amp)
        trainee.model.train()
        return found

    def score_network(self, network: nn.Module, amp: bool, batch: int = 50) -> dict[str, float]:
        """Mean SI-SNR of output and input in dB, gain and compressed spectral distance of a network in eval mode."""
        sums = torch.zeros(4, dtype=torch.float64)
        with torch.no_grad():
            for noisy, clean in zip(self.noisy.split(batch), self.clean.split(batch), strict=True):
                with autocast(noisy.device, amp):
                    estimate = network(noisy).float()
                gain = (estimate * clean).sum(-1) / (clean * clean).sum(-1)
                spectral = compressed_spectral_loss(estimate, clean) * len(noisy)
                rows = [si_snr_db(estimate, clean).sum(), si_snr_db(noisy, clean).sum(), gain.sum(), spectral]
                sums += torch.stack(rows).double().cpu()
        names = ("si_snr_db", "noisy_si_snr_db", "gain", "spectral")
        return dict(zip(names, (sums / len(self.noisy)).tolist(), strict=True))
