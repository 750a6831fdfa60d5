"""Plans of a batch as arrays: what a device needs to render them together.

Every sound of the batch (voices first, then noises) has a row of one segment. An array names the mixtures, rows or cuts
that a step of the rendering works on; a step with nothing to do has empty arrays. Packing costs no arithmetic on audio,
so that worker processes can do it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.decoded import DecodedCorpus
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.plan import EQUALISER_POINTS, MixturePlan, Sound
from dccrn_lib.corpus.recordings import Recordings


@dataclass
class Pieces:
    """Runs of samples that are copied out of the corpus, all of them at once.

    Args:
        source, target: where each begins in the corpus and in the flattened rows, int64 (piece,).
        count: samples of each, int64 (piece,).
        scale: value of full scale of each, float32 (piece,).
        total: sum of the counts.
    """

    source: Tensor
    target: Tensor
    count: Tensor
    scale: Tensor
    total: int


@dataclass
class PlanBatch:
    """Plans of a batch, packed. Row numbers count all sounds of the batch: a voice for every mixture, then the noises.

    Args:
        ids: names of the mixtures.
        mixtures, samples, rows: sizes.
        pieces: of the sounds, into (rows, samples).
        speeds: (up, down) -> rows whose speed it changes, int64 (row,).
        equalised: rows with an equaliser, int64 (row,).
        points_db: their gains, float32 (row, EQUALISER_POINTS).
        reverberant: mixtures with a room, int64 (room,).
        room_pieces: of their responses, into (room, room_samples), what comes before the direct sound at the end.
        room_samples: long enough that a segment and the longest response do not wrap around.
        before, early: samples of each response before the direct sound, and from it on that stay in the target,
            int64 (room, 1).
        layers: of the first noises of all mixtures, the second ones ...: (rows, mixtures), int64 (sound,) each.
        voices: rows that belong to a babble, int64 (voice,).
        second, second_of: rows of second noises, and of the first ones they go with, int64 (sound,).
        second_snr_db: ratio of the two in dB, float32 (sound, 1).
        snr_db, level_dbfs, offset: of each mixture, float32 (mixture, 1); offset 0 = none.
    """

    ids: list[str]
    mixtures: int
    samples: int
    rows: int
    pieces: Pieces
    speeds: dict[tuple[int, int], Tensor]
    equalised: Tensor
    points_db: Tensor
    reverberant: Tensor
    room_pieces: Pieces
    room_samples: int
    before: Tensor
    early: Tensor
    layers: list[tuple[Tensor, Tensor]]
    voices: Tensor
    second: Tensor
    second_of: Tensor
    second_snr_db: Tensor
    snr_db: Tensor
    level_dbfs: Tensor
    offset: Tensor

    def pin_memory(self) -> PlanBatch:
        """In memory from which a GPU can copy while the host does other work; the data loader asks for it."""
        return _each_tensor(self, lambda t: t.pin_memory())

    def to(self, device: torch.device) -> PlanBatch:
        """On a device; from pinned memory the copies are only queued."""
        return _each_tensor(self, lambda t: t.to(device, non_blocking=True))

    def __getstate__(self) -> dict:
        """For another process: arrays, some kilobytes. Each tensor would take shared memory and an open file of its own."""
        return _each_tensor(self.__dict__, lambda t: t.numpy())

    def __setstate__(self, state: dict) -> None:
        self.__dict__ |= _each_tensor(state, torch.from_numpy, np.ndarray)


def _each_tensor(value: Any, change: Callable[[Any], Any], kind: type = Tensor) -> Any:
    """A structure with every tensor in it (or other thing of that kind) changed."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return {key: _each_tensor(item, change, kind) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_each_tensor(item, change, kind) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _each_tensor(getattr(value, f.name), change, kind) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


class Packer:
    """Packs plans for a corpus that lies decoded.

    Args:
        entries: recordings by the numbers that plans hold.
        decoded: where their samples lie.
    """

    def __init__(self, entries: Sequence[Entry], decoded: DecodedCorpus) -> None:
        self.entries, self.decoded = entries, decoded
        self._peaks: dict[int, int] = {}  # room -> sample of its direct sound

    def __call__(self, plans: Sequence[MixturePlan]) -> PlanBatch:
        """The plans of a batch, all of one length."""
        samples = plans[0].samples
        sounds = [plan.speech for plan in plans]
        layers: list[tuple[list[int], list[int]]] = []
        voices, second, second_of, second_snr = [], [], [], []
        for mixture, plan in enumerate(plans):
            for depth, noise in enumerate(plan.noises):
                if depth == len(layers):
                    layers.append(([], []))
                layers[depth][0].append(len(sounds))
                layers[depth][1].append(mixture)
                if plan.babble:
                    voices.append(len(sounds))
                elif depth == 1:
                    second.append(len(sounds))
                    second_of.append(len(sounds) - 1)
                    second_snr.append(plan.second_snr_db)
                sounds.append(noise)
        rooms = [(i, plan.room, plan.early) for i, plan in enumerate(plans) if plan.room is not None]
        room_pieces, room_samples, before = self._rooms([number for _, number, _ in rooms], samples)
        equalised = [(row, s.equaliser_db) for row, s in enumerate(sounds) if s.equaliser_db is not None]
        points = [db for _, db in equalised]
        return PlanBatch(
            [plan.id for plan in plans],
            len(plans),
            samples,
            len(sounds),
            self._pieces(sounds, plans[0].seconds),
            _by_speed(plans),
            _whole([row for row, _ in equalised]),
            _real(points).reshape(-1, EQUALISER_POINTS),
            _whole([mixture for mixture, _, _ in rooms]),
            room_pieces,
            room_samples,
            _whole(before)[:, None],
            _whole([early for _, _, early in rooms])[:, None],
            [(_whole(rows), _whole(owners)) for rows, owners in layers],
            _whole(voices),
            _whole(second),
            _whole(second_of),
            _real(second_snr)[:, None],
            *(_real([getattr(plan, name) or 0.0 for plan in plans])[:, None] for name in _LEVELS),
        )

    def _pieces(self, sounds: Sequence[Sound], seconds: float) -> Pieces:
        """The cuts of all sounds, without what lies outside their segments."""
        samples, rows = round(seconds * SAMPLE_RATE), []
        for row, sound in enumerate(sounds):
            for cut in sound.cuts:
                first, _, scale = self.decoded.place(self.entries[cut.recording])
                begin, end = max(cut.at, 0), min(cut.at + cut.samples, samples)
                source = first + int(cut.start * SAMPLE_RATE) + begin - cut.at
                rows.append((source, row * samples + begin, end - begin, scale))
        return _as_pieces(rows)

    def _rooms(self, numbers: Sequence[int], samples: int) -> tuple[Pieces, int, list[int]]:
        """Responses with the direct sound at sample 0, the length of their rows, and what was before it."""
        places = [self.decoded.place(self.entries[number]) for number in numbers]
        longest = max((length for _, length, _ in places), default=1)
        # scipy's stubs do not say that the length is an int
        size: int = next_fast_len(samples + longest - 1, real=True)  # pyright: ignore[reportAssignmentType]
        before, rows = [self._peak(number) for number in numbers], []
        for row, ((first, length, scale), peak) in enumerate(zip(places, before, strict=True)):
            rows.append((first + peak, row * size, length - peak, scale))
            rows.append((first, (row + 1) * size - peak, peak, scale))
        return _as_pieces(rows), size, before

    def _peak(self, number: int) -> int:
        if number not in self._peaks:
            room = Recordings(self.entries, self.decoded).room(number)
            self._peaks[number] = int(np.abs(room).argmax())
        return self._peaks[number]


_LEVELS = ("snr_db", "level_dbfs", "offset")


def _by_speed(plans: Sequence[MixturePlan]) -> dict[tuple[int, int], Tensor]:
    rows: dict[tuple[int, int], list[int]] = {}
    for row, plan in enumerate(plans):
        if plan.speed is not None:
            rows.setdefault(plan.speed, []).append(row)
    return {speed: _whole(numbers) for speed, numbers in rows.items()}


def _as_pieces(rows: Sequence[tuple[int, int, int, float]]) -> Pieces:
    source, target, count, scale = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Pieces(_whole(source), _whole(target), _whole(count), _real(scale), sum(count))


def _whole(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def _real(numbers: Sequence) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32)
