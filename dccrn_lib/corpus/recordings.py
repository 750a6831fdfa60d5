"""Recordings by number, as plans name them, wherever their samples come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dccrn_lib.corpus.decoded import DecodedCorpus
from dccrn_lib.corpus.decoding import AudioCache, from_int16
from dccrn_lib.corpus.entry import Entry


class Recordings:
    """Entries and where to read them.

    Args:
        entries: in the order of their numbers.
        source: a cache of decoded files, or the whole corpus decoded.
    """

    def __init__(self, entries: Sequence[Entry], source: AudioCache | DecodedCorpus) -> None:
        self.entries, self.source = entries, source

    def view(self, number: int, start: float, seconds: float) -> tuple[np.ndarray, float]:
        """Samples of a piece as they are kept, int16 with the value of full scale, or float32: (sample,), float."""
        return self.source.view(self.entries[number], start, seconds)

    def room(self, number: int) -> np.ndarray:
        """A whole room response, float32 (sample,)."""
        entry = self.entries[number]
        return as_float(*self.view(number, 0.0, entry.seconds + 1))


def as_float(samples: np.ndarray, scale: float) -> np.ndarray:
    """What :meth:`Recordings.view` gives, (sample,), as float32 of the same shape."""
    return from_int16(samples, scale) if samples.dtype == np.int16 else samples
