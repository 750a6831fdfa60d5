"""Where a soak works: a temporary folder, its random numbers, and small materials that are made when first needed."""

from __future__ import annotations

import math
import shutil
import time
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


class Place:
    """A folder to work in.

    Args:
        folder: empty; everything is written below it.
        share: fraction of the trials of the full form; at least one of each is made.
        seed: of every random number.
        minutes: after so many a case begins no further trial.
    """

    def __init__(self, folder: Path, share: float = 1.0, seed: int = 0, minutes: float = math.inf) -> None:
        self.folder, self.share, self.seed, self.minutes = folder, share, seed, minutes
        self.until = math.inf
        self.counts: dict[str, int] = {}

    def count(self, full: int, least: int = 1) -> int:
        """How many trials to make where the full form has ``full``."""
        return max(least, round(full * self.share))

    def begin(self) -> None:
        """A case begins: its minutes count from here."""
        self.until = time.monotonic() + 60 * self.minutes

    def over(self) -> bool:
        """Whether the minutes of the case are used up."""
        return time.monotonic() > self.until

    def trials(self, full: int, least: int = 1) -> Iterator[int]:
        """Numbers of the trials, until they are enough or the time is over; one at least."""
        for k in range(self.count(full, least)):
            if k and self.over():
                return
            yield k

    def random(self, *names: object) -> np.random.Generator:
        """Random numbers of their own for what is named so."""
        return np.random.default_rng([self.seed, *(zlib.crc32(str(name).encode()) for name in names)])

    def new(self, name: str) -> Path:
        """A fresh folder for a trial."""
        self.counts[name] = self.counts.get(name, 0) + 1
        folder = self.folder / "trials" / f"{name}-{self.counts[name]}"
        folder.mkdir(parents=True)
        return folder

    def tidy(self) -> None:
        """Remove the folders of trials; the materials stay."""
        shutil.rmtree(self.folder / "trials", ignore_errors=True)

    @cached_property
    def weights(self) -> Path:
        """A miniature network with fresh weights."""
        import torch

        from dccrn_lib import build_model, save_model

        torch.manual_seed(self.seed)
        return save_model(build_model("distil_dccrn_mini").eval(), self.folder / "weights" / "mini")

    @cached_property
    def corpus(self) -> Path:
        """Folder with speech.jsonl and noise.jsonl: short sounds, some in every split."""
        from dccrn_lib.corpus.entry import Entry
        from dccrn_lib.corpus.manifest import write_manifest

        folder, seconds = self.folder / "corpus", 1.5
        for kind in ("speech", "noise"):
            entries = []
            for k in range(10):
                path = folder / kind / f"{k:02d}.wav"
                write_sound(path, seconds, self.random(kind, k), speech=kind == "speech")
                split = ("train", "train", "train", "valid", "test")[k % 5]
                names = {"speaker" if kind == "speech" else "recording": f"{kind}-{k}"}
                entries.append(Entry(str(path), kind, "soak", seconds, RATE, split, **names))
            write_manifest(folder / f"{kind}.jsonl", entries)
        return folder

    @cached_property
    def recordings(self) -> Path:
        """Folder with twelve recordings of 2 to 8 s."""
        folder = self.folder / "recordings"
        for k in range(12):
            write_sound(folder / f"{k:02d}.wav", 2.0 + k / 2, self.random("recording", k), speech=True)
        return folder

    @cached_property
    def lessons(self) -> Path:
        """A project folder with two small notebooks, the second of which needs the first."""
        import nbformat

        folder = self.folder / "project"
        (folder / "notebooks").mkdir(parents=True)
        for name, needs in (("01_first", []), ("02_second", ["01_first"])):
            cells = [nbformat.v4.new_markdown_cell(f"# {name}")]
            parameters = 'profile: str = "quick"  # size\nrepeats: int = 4  # sums\n'
            cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
            code = "import time\ntime.sleep(0.15)\nprint(sum(range(10 ** repeats)))"
            cells += [nbformat.v4.new_code_cell(f"{code}  # {k}") for k in range(5)]
            notebook = nbformat.v4.new_notebook(cells=cells, metadata={"dccrn": {"needs": needs}})
            nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
        return folder


def sound(seconds: float, random: np.random.Generator, speech: bool = False, rate: int = RATE) -> np.ndarray:
    """Noise at -26 dBFS; with ``speech``, a buzz with syllables in front of it. Float32 (sample,)."""
    samples = max(1, round(seconds * rate))
    noise = random.standard_normal(samples) * 0.03
    if speech:
        t = np.arange(samples) / rate
        pitch = 2 * np.pi * np.cumsum(110 + 40 * np.sin(2 * np.pi * 0.7 * t + random.uniform(0, 6))) / rate
        noise = 0.2 * noise + sum(np.sin(k * pitch) / k for k in range(1, 9)) * 0.08 * np.sin(2 * np.pi * 2.5 * t) ** 2
    return noise.astype(np.float32)


def write_sound(path: Path, seconds: float, random: np.random.Generator, speech: bool = False) -> Path:
    """Write such a sound as a file of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(seconds, random, speech), RATE, subtype="PCM_16")
    return path
