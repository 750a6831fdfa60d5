"""Where the mixtures of a training are rendered: by workers on the CPU, or on the training device from a corpus held there.

    workers:  worker processes plan and render            -> batch, copied to the device
    device:   worker processes plan (numbers only, cheap) -> the device renders the batch

Both bring the same mixtures up to rounding, so that a run may be resumed with either.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dccrn_lib.corpus.batch_rendering import DeviceCorpus, render_batch
from dccrn_lib.corpus.decoded import DecodedCorpus, decode_corpus
from dccrn_lib.corpus.decoding import LONG
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.loading import Batches
from dccrn_lib.corpus.manifest import read_manifest
from dccrn_lib.corpus.mixing import MixtureDataset
from dccrn_lib.corpus.plan import MixturePlan
from dccrn_lib.corpus.plan_batch import PlanBatch
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import joined_paths
from dccrn_lib.training.config import TrainConfig

#: A corpus may take this fraction of a device's memory; the networks want the rest.
FRACTION = 0.25


def corpus_entries(config: TrainConfig) -> list[Entry]:
    """The train and valid recordings of a config's manifests."""
    paths = [(kind, p) for kind in ("speech", "noise", "rir") for p in joined_paths(getattr(config, kind))]
    return [e for kind, path in paths for e in read_manifest(path, kind=kind) if e.split != "test"]


def renders_on_device(config: TrainConfig, device: torch.device, corpus_bytes: float) -> bool:
    """Whether the device renders: as ``config.rendering`` says, or for "auto" a GPU that has room for the corpus.

    On a CPU "auto" leaves it to the workers: a training step takes a hundred times as long as its mixtures there, and a
    run stays bit for bit what it was.
    """
    if config.rendering != "auto":
        return config.rendering == "device"
    if device.type != "cuda":
        return False
    return corpus_bytes <= FRACTION * torch.cuda.get_device_properties(device).total_memory


def decoded_for_device(config: TrainConfig, device: torch.device, folder: Path, progress: bool) -> DecodedCorpus | None:
    """The corpus decoded, for a run whose device renders; None if its workers do.

    A run that reads its files one by one cuts long ones by whole samples of their own rate. Where there are such files,
    "auto" leaves them to the workers: resumed on another device the run then still sees the same mixtures.

    Raises:
        ConfigError: the config asks for the device, and long files would be cut otherwise there.
    """
    if config.rendering == "workers" or (config.rendering == "auto" and device.type != "cuda"):
        return None
    entries = corpus_entries(config)
    long = next((e.path for e in entries if e.seconds > LONG), None)
    if long is not None and config.rendering == "device":
        raise ConfigError(
            f"rendering=device needs recordings of at most {LONG} s, {long} is longer: cut it up, or use rendering=workers "
            "(a campaign decodes all files first and takes any)"
        )
    size = 2 * 16000 * sum(e.seconds for e in entries)  # int16
    if long is not None or not renders_on_device(config, device, size):
        return None
    return decode_corpus(entries, folder, progress=progress)


class Plans(Dataset):
    """A dataset's plans instead of its mixtures."""

    def __init__(self, dataset: MixtureDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> MixturePlan:
        return self.dataset.plan(index)


class DeviceBatches:
    """Batches of mixtures that the device renders.

    Args:
        dataset: of the decoded corpus.
        decoded: that corpus.
        samples: it on the device, ``decoded.tensor().to(device)``.
        batch_size, sampler, workers, options: as of :class:`dccrn_lib.corpus.loading.Batches`; the workers only plan.

    Raises:
        DccrnError, OSError: of a plan, when its batch's turn has come.
        WorkerError: a worker process was killed.
    """

    def __init__(
        self,
        dataset: MixtureDataset,
        decoded: DecodedCorpus,
        samples: Tensor,
        batch_size: int,
        sampler: Iterable[int],
        workers: int,
        **options: Any,
    ) -> None:
        self.corpus = DeviceCorpus(dataset.planner.entries, decoded, samples)
        cuda = samples.device.type == "cuda"
        self.plans = Batches(Plans(dataset), batch_size, sampler, workers, self.corpus.pack, pin_memory=cuda, **options)

    def __iter__(self) -> DeviceBatches:
        return self

    def plan(self) -> PlanBatch:
        """The next batch's plans; waits for the workers."""
        return next(self.plans)

    def render(self, plans: PlanBatch) -> tuple[Tensor, Tensor]:
        """(noisy, clean), each (batch, sample) on the device; on CUDA only queued, on the current stream."""
        return render_batch(plans, self.corpus)

    def __next__(self) -> dict:
        plans = self.plan()
        noisy, clean = self.render(plans)
        return {"noisy": noisy, "clean": clean, "id": plans.ids}
