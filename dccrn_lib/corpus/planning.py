"""Drawing plans: all random decisions of a mixture, a pure function of (seed, epoch, index).

No state travels from one plan to the next, so that resuming a run, or changing the number of workers or processes,
changes no mixture. A draw looks at a recording only to learn how long a piece is and that it is not silent.

Source: the DNS Challenge recipe as DCCRN used it (-5..20 dB, room responses); babble, speed and equaliser are ours.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dccrn_lib.audio.rate import SAMPLE_RATE
from dccrn_lib.corpus.entry import Entry
from dccrn_lib.corpus.mix_config import MixConfig
from dccrn_lib.corpus.plan import EQUALISER_POINTS, Cut, MixturePlan, Sound
from dccrn_lib.corpus.recordings import Recordings, as_float
from dccrn_lib.corpus.rendering import power, segment
from dccrn_lib.runtime.errors import AudioError

SPEEDS = ((9, 10), (19, 20), (20, 19), (10, 9), (17, 20), (20, 17))  # up, down of a rational resampler
SILENT_ROOM = 10 ** (-90 / 20)  # largest sample of a room response that counts as none
SILENT_SPEECH, SILENT_NOISE = 1e-8, 1e-9  # powers up to which a segment counts as silent
_PROBE = 32  # one sample of so many is looked at first


class Groups:
    """Recordings by speaker or by the recording they were cut from, and the probability of drawing each.

    Args:
        entries: one kind of recordings.
        first: number of the first of them.
        power: a group is drawn with probability ~ (its seconds)^power.
        corpus_power: a corpus is drawn with probability ~ (its seconds)^corpus_power, a group within it as above.
    """

    def __init__(self, entries: Sequence[Entry], first: int, power: float, corpus_power: float | None = None) -> None:
        numbers: dict[tuple[str, str], list[int]] = {}
        for i, entry in enumerate(entries):
            numbers.setdefault((entry.corpus, entry.group), []).append(i)
        self.numbers = [[first + i for i in group] for group in numbers.values()]
        self.entries = [[entries[i] for i in group] for group in numbers.values()]
        seconds = np.array([sum(e.seconds for e in group) for group in self.entries])
        weight = np.maximum(seconds, 0.1) ** power
        if corpus_power is not None:
            corpus = np.array([group[0].corpus for group in self.entries])
            for name in set(corpus.tolist()):
                inside = corpus == name
                weight[inside] *= seconds[inside].sum() ** corpus_power / weight[inside].sum()
        self.cumulative = np.cumsum(weight / weight.sum())

    def draw(self, rng: np.random.Generator) -> int:
        """Number of a group."""
        return min(int(np.searchsorted(self.cumulative, rng.random())), len(self.entries) - 1)


class Planner:
    """Draws plans of a corpus.

    Args:
        speech, noise, rir: entries.
        config: how to draw.
        seed: of all plans.
    """

    def __init__(
        self, speech: Sequence[Entry], noise: Sequence[Entry], rir: Sequence[Entry], config: MixConfig, seed: int
    ) -> None:
        self.config, self.seed = config, seed
        self.entries = [*speech, *noise, *rir]
        self.speech = Groups(speech, 0, config.group_power)
        self.noise = Groups(noise, len(speech), config.group_power, config.noise_corpus_power)
        self.rooms = range(len(speech) + len(noise), len(self.entries))
        self.samples = round(config.segment_seconds * SAMPLE_RATE)
        self.early = max(1, round(config.early_ms / 1000 * SAMPLE_RATE))
        self.silent: Counter[str] = Counter()  # names of files -> how often they were left out in this process
        self._heard_rooms: dict[int, bool] = {}

    def draw(self, epoch: int, index: int, recordings: Recordings) -> MixturePlan:
        """The plan of a mixture.

        Args:
            epoch, index: which one.
            recordings: this planner's ``entries``, to be looked at.

        Raises:
            AudioError: a file cannot be read (the message names it), or all that is drawn is silent.
        """
        c = self.config
        rng = np.random.default_rng([self.seed, epoch, index])
        speaker, cuts = self._any_speech(rng, recordings)
        speed = SPEEDS[rng.integers(len(SPEEDS))] if rng.random() < c.speed_probability else None
        if speed and not self._heard_at(speed, cuts, recordings):
            speed = None
        speech = Sound(cuts, self._equaliser(rng))
        room = self._room(rng, recordings) if self.rooms and rng.random() < c.rir_probability else None
        noises, babble, second, label = self._noises(rng, speaker, recordings)
        snr = float(rng.uniform(*c.snr_db))
        wide = c.wide_level_probability > 0 and rng.random() < c.wide_level_probability
        level = float(rng.uniform(*(c.wide_level_dbfs if wide else c.level_dbfs)))
        shifted = c.offset_probability > 0 and rng.random() < c.offset_probability
        return MixturePlan(
            self.seed,
            epoch,
            index,
            c.segment_seconds,
            self.speech.entries[speaker][0].group,
            label,
            speech,
            speed,
            room,
            self.early,
            noises,
            babble,
            second,
            snr,
            level,
            float(rng.uniform(-1, 1)) if shifted else None,
        )

    def _any_speech(self, rng: np.random.Generator, recordings: Recordings) -> tuple[int, tuple[Cut, ...]]:
        """A speaker and a segment; a speaker of whom nothing is heard is left out, and another one drawn."""
        for _ in range(20):
            speaker = self.speech.draw(rng)
            cuts = self._speech(rng, speaker, recordings)
            if cuts is not None:
                return speaker, cuts
        names = "; ".join(sorted(self.silent)[:3])
        raise AudioError(f"20 speakers in a row are silent ({names}); scan the corpus again, silence is left out there")

    def _speech(self, rng: np.random.Generator, speaker: int, recordings: Recordings) -> tuple[Cut, ...] | None:
        """A segment of one speaker; short utterances are joined with pauses of 0.1 to 0.4 s. None: 20 are silent."""
        group = self.speech.numbers[speaker]
        for _ in range(20):
            cuts, have = [], 0
            while have < self.samples:
                cuts.append(self._cut(rng, group[rng.integers(len(group))], have, recordings))
                have += cuts[-1].samples + int(rng.uniform(0.1, 0.4) * SAMPLE_RATE)
            if self._heard(Sound(tuple(cuts)), SILENT_SPEECH, recordings):
                return tuple(cuts)
        entries = self.speech.entries[speaker]
        self._skip(entries, f"speech of {entries[0].group}")
        return None

    def _cut(self, rng: np.random.Generator, number: int, at: int, recordings: Recordings) -> Cut:
        """A random cut of at most one segment out of a recording."""
        seconds = self.config.segment_seconds
        start = rng.uniform(0, max(self.entries[number].seconds - seconds, 0))
        return Cut(number, start, len(recordings.view(number, start, seconds)[0]), at)

    def _noises(
        self, rng: np.random.Generator, speaker: int, recordings: Recordings
    ) -> tuple[tuple[Sound, ...], bool, float | None, str]:
        """One or two recordings, or babble: (sounds, whether it is babble, ratio of the two in dB, what to call it)."""
        if len(self.speech.entries) > 3 and rng.random() < self.config.babble_probability:
            others = [i for i in rng.permutation(len(self.speech.entries)) if i != speaker][: rng.integers(3, 8)]
            voices = [self._speech(rng, int(i), recordings) for i in others]
            heard = tuple(Sound(v) for v in voices if v is not None)
            if heard:
                return heard, True, None, "babble"
        noise, label = self._noise(rng, recordings)
        if rng.random() >= self.config.second_noise_probability:
            return (noise,), False, None, label
        second, other = self._noise(rng, recordings)
        label = label if label == other else f"{label}+{other}"
        return (noise, second), False, float(rng.uniform(0, 10)), label

    def _noise(self, rng: np.random.Generator, recordings: Recordings) -> tuple[Sound, str]:
        """A segment of one recording; short ones repeat with pauses of up to half their length."""
        for _ in range(20):
            number = self.noise.draw(rng)
            group = self.noise.numbers[number]
            cuts, have, end = [], 0, 0
            while have < self.samples:
                cut = self._cut(rng, group[rng.integers(len(group))], end, recordings)
                pause = int(rng.uniform(0, 0.5) * cut.samples) if cut.samples < self.samples else 0
                cuts.append(cut)
                end += cut.samples + pause
                have += max(cut.samples + pause, 1)
            first = int(rng.integers(0, max(end - self.samples, 0) + 1))
            moved = (Cut(c.recording, c.start, c.samples, c.at - first) for c in cuts)
            inside = tuple(c for c in moved if c.at < self.samples and c.at + c.samples > 0)
            sound, last = Sound(inside, self._equaliser(rng)), self.entries[cuts[-1].recording]
            if self._heard(sound, SILENT_NOISE, recordings):
                return sound, last.label or last.corpus
            self._skip(self.noise.entries[number], "a segment of this noise")
        names = "; ".join(sorted(self.silent)[:3])
        raise AudioError(f"20 noise segments in a row are silent ({names}); scan the noise corpus again")

    def _equaliser(self, rng: np.random.Generator) -> tuple[float, ...] | None:
        """Gains of a random smooth equaliser, or none."""
        if rng.random() >= self.config.equaliser_probability:
            return None
        return tuple((rng.uniform(-1, 1, EQUALISER_POINTS) * self.config.equaliser_db).tolist())

    def _room(self, rng: np.random.Generator, recordings: Recordings) -> int | None:
        """Number of a room response; None if it is silent."""
        number = self.rooms[rng.integers(len(self.rooms))]
        if number not in self._heard_rooms:
            self._heard_rooms[number] = bool(np.abs(recordings.room(number)).max(initial=0.0) >= SILENT_ROOM)
        if self._heard_rooms[number]:
            return number
        self._skip([self.entries[number]], "this room response")
        return None

    def _heard(self, sound: Sound, least: float, recordings: Recordings) -> bool:
        """Whether the power of a segment lies above ``least``; a loud one is found out by a few of its samples."""
        gains = sound.equaliser_db or (0.0,)
        for cut in sound.cuts:
            # sum over all (x - mean)^2 >= sum over some of them (x - mean of these)^2, so these give a lower bound
            samples, scale = recordings.view(cut.recording, cut.start, self.config.segment_seconds)
            some = as_float(samples[max(-cut.at, 0) : self.samples - cut.at : _PROBE], scale)
            bound = float(np.var(some, dtype=np.float64)) * len(some) / self.samples * 10 ** (min(gains) / 10)
            peak = scale * 10 ** (max(gains) / 20)  # power() takes less than 1e-12 of the offset's for rounding
            if bound > 1.01 * least and bound > 1e-11 * peak**2:
                return True
        return power(segment(sound, self.config.segment_seconds, recordings)) > least

    def _heard_at(self, speed: tuple[int, int], cuts: tuple[Cut, ...], recordings: Recordings) -> bool:
        """Whether anything is heard of a segment that is slowed down, of which the end is then cut off."""
        up, down = speed
        if up <= down:
            return True
        kept = segment(Sound(cuts), self.config.segment_seconds, recordings)[: self.samples * down // up]
        return power(kept) > SILENT_SPEECH

    def _skip(self, entries: Sequence[Entry], what: str) -> None:
        """Count what is left out because it is silent, and say so at the 1st, 10th, 100th ... time."""
        name = ", ".join(sorted({e.path for e in entries})[:3]) + (" ..." if len(entries) > 3 else "")
        self.silent[name] += 1
        times = self.silent[name]
        if times in (1, 10, 100, 1000, 10000):
            warnings.warn(
                f"{name}: {what} is silent, left out ({times} times in this process); scan the corpus again",
                RuntimeWarning,
                stacklevel=2,
            )
