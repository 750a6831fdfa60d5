"""A mixture before it is computed: which pieces of which recordings, where, how loud, through which filters and room.

A plan is numbers only. ``planning`` draws it from (seed, epoch, index), ``rendering`` computes one mixture from it,
``batch_rendering`` a batch of them on any device. Recordings are counted through: speech, noise and rooms in one list.
"""

from __future__ import annotations

from dataclasses import dataclass

from dccrn_lib.audio.rate import SAMPLE_RATE

EQUALISER_POINTS = 6  # at equal distances over the octaves from 30 Hz to 8 kHz


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of a recording and its place in the segment.

    Args:
        recording: number of the recording.
        start: where it begins in the recording, in s.
        samples: how many the recording has from there, at most a segment.
        at: sample of the segment at which it begins; what lies before 0 or past the end is cut off.
    """

    recording: int
    start: float
    samples: int
    at: int


@dataclass(frozen=True, slots=True)
class Sound:
    """A voice or a noise: pieces one after the other with pauses, perhaps equalised.

    Args:
        cuts: in order.
        equaliser_db: gains in dB at :data:`EQUALISER_POINTS` points, linear over the octaves in between; None: none.
    """

    cuts: tuple[Cut, ...]
    equaliser_db: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class MixturePlan:
    """All that decides a mixture.

    Args:
        seed, epoch, index: what it was drawn from.
        seconds: length in s.
        speaker: who speaks.
        label: what to call the noise.
        speech: the voice; its equaliser comes after the change of speed.
        speed: (up, down) of the resampler that plays the voice slower or faster; None: as it is.
        room: number of the room response; None: none.
        early: samples of the room response from the direct sound on that stay in the target.
        noises: one noise, or two, or the voices of a babble.
        babble: whether they are voices, all equally loud.
        second_snr_db: of the first noise over the second, in dB.
        snr_db: of speech over noise, in dB.
        level_dbfs: RMS of the mixture in dB relative to full scale.
        offset: constant that is added to the input, in RMS of the mixture; None: none.
    """

    seed: int
    epoch: int
    index: int
    seconds: float
    speaker: str
    label: str
    speech: Sound
    speed: tuple[int, int] | None
    room: int | None
    early: int
    noises: tuple[Sound, ...]
    babble: bool
    second_snr_db: float | None
    snr_db: float
    level_dbfs: float
    offset: float | None

    @property
    def samples(self) -> int:
        """Length in samples."""
        return round(self.seconds * SAMPLE_RATE)

    @property
    def id(self) -> str:
        """Its name, for files."""
        return f"s{self.seed}_e{self.epoch}_i{self.index:05d}"
