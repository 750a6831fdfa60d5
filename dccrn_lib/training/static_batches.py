"""What the networks of a lockstep are trained on: batches in tensors that stay where they are on the device."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dccrn_lib.corpus.decoded import DecodedCorpus
from dccrn_lib.corpus.loading import Batches
from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.training.batches import mixture_index
from dccrn_lib.training.config import TrainConfig
from dccrn_lib.training.mixtures import DeviceBatches


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
        indices = (mixture_index(i, config) for i in itertools.count(start * config.batch_size))
        prefetch = 4 if workers else None
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
