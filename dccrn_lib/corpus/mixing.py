"""Noisy speech on the fly: mixtures of a corpus by index, each a pure function of (seed, epoch, index).

``planning`` draws a plan from (seed, epoch, index) -> ``rendering`` computes noisy and clean waveform from it
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset

from dccrn_lib.audio.files import write_audio
from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.decoded import DecodedCorpus
from dccrn_lib.corpus.decoding import AudioCache
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.manifest import read_manifests
from dccrn_lib.corpus.mix_config import MixConfig
from dccrn_lib.corpus.plan import MixturePlan
from dccrn_lib.corpus.planning import Planner
from dccrn_lib.corpus.recordings import Recordings
from dccrn_lib.corpus.rendering import mix_at_snr, power, render
from dccrn_lib.runtime.errors import ManifestError
from dccrn_lib.runtime.paths import joined_paths

__all__ = ["SAMPLE_RATE", "MixConfig", "MixtureDataset", "mix_at_snr", "power", "write_pairs"]


class MixtureDataset(Dataset):
    """Mixtures of a corpus by index.

    Args:
        speech, noise, rir: entries, or the paths of manifests, joined by commas, together with ``split``. ``rir`` may be
            None.
        config: how to draw.
        seed: of the whole set.
        length: mixtures per epoch.
        split: which split to read when manifests are given by path.
        cache_mb: memory for decoded files, in MiB per process.
        decoded: where all files lie decoded, instead of a cache in each process (see ``corpus.decoded``).

    Item i: {"noisy", "clean": float32 (sample,), "snr_db": float, "label": kind of noise, "speaker": str, "index": int,
    "id": str}; indices past ``length`` continue with the next epoch.

    Raises:
        ManifestError: no speech or no noise.
        AudioError: a file cannot be read (the message names it).
    """

    def __init__(
        self,
        speech: Sequence[Entry] | str | Path,
        noise: Sequence[Entry] | str | Path,
        rir: Sequence[Entry] | str | Path | None = None,
        config: MixConfig | None = None,
        seed: int = 0,
        length: int = 1000,
        split: str | None = None,
        cache_mb: float = 512,
        decoded: DecodedCorpus | None = None,
    ) -> None:
        self.config = config or MixConfig()
        self.seed, self.length = seed, length
        lists = {}
        for kind, given in (("speech", speech), ("noise", noise), ("rir", rir)):
            if isinstance(given, (str, Path)):
                given = read_manifests(joined_paths(given), split=split, kind=kind)
            lists[kind] = list(given or [])
        for kind in ("speech", "noise"):
            if not lists[kind]:
                raise ManifestError(
                    f"no {kind} to mix; give a manifest with {kind} in the split {split or 'asked for'}"
                )
        self.planner = Planner(lists["speech"], lists["noise"], lists["rir"], self.config, seed)
        self.cache_mb = cache_mb
        self._cache: AudioCache | DecodedCorpus | None = decoded

    @property
    def samples(self) -> int:
        """Length of a mixture."""
        return self.planner.samples

    @property
    def silent(self) -> Counter[str]:
        """Names of files, and how often they were left out in this process because nothing is heard in them."""
        return self.planner.silent

    def __len__(self) -> int:
        return self.length

    def __getstate__(self) -> dict:
        cache = self._cache if isinstance(self._cache, DecodedCorpus) else None  # a worker starts with an empty cache
        return {**self.__dict__, "_cache": cache}

    @property
    def recordings(self) -> Recordings:
        """What is mixed, by the numbers that plans hold."""
        if self._cache is None:
            self._cache = AudioCache(self.cache_mb)
        return Recordings(self.planner.entries, self._cache)

    def plan(self, index: int) -> MixturePlan:
        """All that decides a mixture; nothing of it is computed yet.

        Args:
            index: from 0; beyond the length the next epoch begins.

        Raises:
            IndexError: a negative index.
            AudioError: as of drawing it, see ``planning``.
        """
        if index < 0:
            raise IndexError(index)
        return self.planner.draw(index // self.length, index % self.length, self.recordings)

    def __getitem__(self, index: int) -> dict:
        plan = self.plan(index)
        noisy, clean = render(plan, self.recordings)
        return {
            "noisy": torch.from_numpy(noisy),
            "clean": torch.from_numpy(clean),
            "snr_db": plan.snr_db,
            "label": plan.label,
            "speaker": plan.speaker,
            "index": plan.index,
            "id": plan.id,
        }


def write_pairs(dataset: MixtureDataset, folder: str | Path, count: int | None = None) -> Path:
    """Write the first mixtures of a set as ``clean/<id>.wav`` and ``noisy/<id>.wav`` (32-bit float).

    Args:
        dataset: the set.
        folder: where; the two folders are made in it.
        count: how many; all of one epoch by default.

    Returns:
        The folder, ready for ``python -m dccrn_lib evaluate --clean ... --noisy ...``.
    """
    folder = Path(folder)
    for i in range(len(dataset) if count is None else count):
        item = dataset[i]
        for part in ("clean", "noisy"):
            write_audio(folder / part / f"{item['id']}.wav", item[part].numpy()[None], SAMPLE_RATE, subtype="FLOAT")
    return folder
