"""How mixtures are drawn: the numbers that a plan is drawn from."""

from __future__ import annotations

from dataclasses import dataclass

from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.settings import Interval, require_intervals, shown

_CHANCES = ("rir", "second_noise", "babble", "speed", "equaliser", "wide_level", "offset")
#: What the numbers may be, in the units of :class:`MixConfig`; 25 ms are a frame of the STFT.
_INTERVALS = {
    "segment_seconds": Interval(0.025, 600),
    "early_ms": Interval(0, 1e6),
    **dict.fromkeys(("snr_db", "level_dbfs", "wide_level_dbfs"), Interval(-200, 200)),
    "equaliser_db": Interval(0, 100),
    **dict.fromkeys(("group_power", "noise_corpus_power"), Interval(-4, 4)),
    **{f"{name}_probability": Interval(0, 1) for name in _CHANCES},
}


@dataclass(frozen=True)
class MixConfig:
    """How a mixture is drawn.

    Args:
        segment_seconds: length of a mixture in s.
        snr_db: lowest and highest signal-to-noise ratio in dB, drawn uniformly; offsets of recordings do not count.
        level_dbfs: lowest and highest RMS of the mixture in dB relative to full scale.
        rir_probability: fraction of mixtures whose speech passes a room response (0 without responses).
        early_ms: part of the room response after the direct sound that stays in the target, in ms; 0 = the direct sound
            alone.
        second_noise_probability: fraction of mixtures with two noises at a time.
        babble_probability: fraction of mixtures whose noise is several other speakers.
        speed_probability: fraction with speech played 5 to 18 % faster or 5 to 15 % slower (pitch moves along).
        equaliser_probability: fraction with a random smooth spectral tilt, drawn apart for speech and noise.
        equaliser_db: largest gain or loss of the tilt in dB.
        group_power: speakers and recordings are drawn with probability ~ (their seconds)^group_power.
        noise_corpus_power: a corpus of noise is drawn with probability ~ (its seconds)^noise_corpus_power, a recording
            within it as above; below 1 a large collection of one sort does not drown the small ones.
        wide_level_probability: fraction of mixtures whose level is drawn from ``wide_level_dbfs`` instead.
        wide_level_dbfs: lowest and highest RMS of those, in dB relative to full scale: quiet and loud recordings.
        offset_probability: fraction of mixtures whose input (not its target) carries a constant offset, as cheap converters
            add it, of at most the RMS of the mixture.
    """

    segment_seconds: float = 4.0
    snr_db: tuple[float, float] = (-5.0, 20.0)
    level_dbfs: tuple[float, float] = (-35.0, -15.0)
    rir_probability: float = 0.25
    early_ms: float = 50.0
    second_noise_probability: float = 0.25
    babble_probability: float = 0.0
    speed_probability: float = 0.0
    equaliser_probability: float = 0.0
    equaliser_db: float = 8.0
    group_power: float = 0.5
    noise_corpus_power: float = 0.5
    wide_level_probability: float = 0.0
    wide_level_dbfs: tuple[float, float] = (-60.0, -5.0)
    offset_probability: float = 0.0

    def __post_init__(self) -> None:
        for name in ("snr_db", "level_dbfs", "wide_level_dbfs"):
            if len(getattr(self, name)) != 2:
                raise ConfigError(f"{name} must be (lowest, highest), got {shown(getattr(self, name))}")
        require_intervals(self, _INTERVALS)
        for name in ("snr_db", "level_dbfs", "wide_level_dbfs"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name} must be (lowest, highest), got ({low}, {high})")
