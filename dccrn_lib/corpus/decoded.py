"""A whole corpus decoded once, in one file that all processes share.

Compressed recordings cost a decoder's time at every draw, and every worker that mixes would keep its own decoded copies.
Here each file is decoded once, by all cores, to 16-bit samples at 16 kHz in one memory-mapped file: 115 MB an hour. A file
whose peak lies above full scale keeps its own scale, so that nothing is clipped.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.decoding import decode, from_int16, to_int16
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.shards import shard_of
from dccrn_lib.runtime.files import atomic_path, read_json, write_json
from dccrn_lib.runtime.workers import usable_cores, worker_pool

_FILES_AT_A_TIME, _SECONDS_AT_A_TIME = 512, 3600.0


def _decode_whole(entry: Entry) -> tuple[np.ndarray, float]:
    return to_int16(decode(entry, 0.0, entry.seconds + 1))


class DecodedCorpus:
    """Files of a corpus as slices of one memory-mapped array of int16.

    Args:
        folder: holds ``samples.i16`` and ``index.json``, from :func:`decode_corpus`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index = read_json(self.folder / "index.json", "remove it to decode the corpus again")
        self.samples = np.asarray(np.memmap(self.folder / "samples.i16", dtype=np.int16, mode="r"))

    def __getstate__(self) -> dict:
        return {"folder": self.folder}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["folder"])

    def place(self, entry: Entry) -> tuple[int, int, float]:
        """Where a file lies in ``samples``: (first sample, number of samples, value of full scale)."""
        first, length, scale = self.index[_key(entry)]
        return first, length, scale

    def tensor(self) -> torch.Tensor:
        """All samples, int16 (sample,), mapped into memory like ``samples``."""
        path = self.folder / "samples.i16"
        return torch.from_file(str(path), shared=False, size=len(self.samples), dtype=torch.int16)

    def view(self, entry: Entry, start: float, seconds: float) -> tuple[np.ndarray, float]:
        """Up to ``seconds`` s from ``start`` s of a file, mono at 16 kHz: int16 (sample,), and the value of full scale."""
        first, length, scale = self.place(entry)
        begin = min(int(start * SAMPLE_RATE), length)
        end = min(begin + round(seconds * SAMPLE_RATE), length)
        return self.samples[first + begin : first + end], scale

    def read(self, entry: Entry, start: float, seconds: float) -> np.ndarray:
        """The same as float32."""
        return from_int16(*self.view(entry, start, seconds))


def _key(entry: Entry) -> str:
    return entry.path if entry.offset is None else f"{entry.path}@{entry.offset}"


def _state(entry: Entry) -> str:
    """What tells a file, or the shard it lies in, from another one that replaces it; "" where there is none."""
    try:
        found = os.stat(shard_of(entry) if entry.offset is not None else entry.path)
    except OSError:
        return ""  # decoding says so, with its name
    return f"{found.st_size} {found.st_mtime_ns}"


def _in_parts(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Entries in parts that are decoded and held together: so many files, or so many seconds of sound."""
    part: list[Entry] = []
    for entry in entries:
        part.append(entry)
        if len(part) == _FILES_AT_A_TIME or sum(e.seconds for e in part) >= _SECONDS_AT_A_TIME:
            yield part
            part = []
    if part:
        yield part


def decode_corpus(
    entries: Sequence[Entry], folder: str | Path, workers: int | None = None, progress: bool = True
) -> DecodedCorpus:
    """Decode files into ``folder/<hash of names, sizes and times>``, or open what lies there from an earlier call.

    Args:
        entries: files of any kinds; a file named twice is decoded once.
        folder: where decoded corpora lie.
        workers: processes; all cores when None.
        progress: show a bar.

    Raises:
        AudioError: a file cannot be read (the message names it); nothing is left behind.
    """
    unique = list({_key(e): e for e in entries}.values())
    named = "\n".join(f"{_key(e)} {e.seconds} {_state(e)}" for e in unique)
    digest = hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    target = Path(folder) / digest
    if not (target / "index.json").is_file():
        target.mkdir(parents=True, exist_ok=True)
        index, at = {}, 0
        with atomic_path(target / "samples.i16") as temporary, open(temporary, "wb") as file:
            bar = tqdm(total=len(unique), desc="decode", unit="file", disable=not progress)
            with bar, worker_pool(workers or usable_cores()) as run:
                for chunk in _in_parts(unique):
                    for entry, (samples, scale) in zip(chunk, run(_decode_whole, chunk, bar), strict=True):
                        file.write(samples.tobytes())
                        index[_key(entry)] = (at, len(samples), scale)
                        at += len(samples)
        write_json(target / "index.json", index, indent=None)
    return DecodedCorpus(target)
