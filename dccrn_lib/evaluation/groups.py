"""Groups of test items: bands of input SNR, families of noise."""

from __future__ import annotations

import numpy as np

#: Kind of generated noise -> what it does to speech; labels of your own corpora stand for themselves.
FAMILIES = {
    "steady": ("coloured", "hum", "fan", "engine"),
    "weather and water": ("wind", "rain", "water"),
    "speech-like": ("babble",),
    "clicks and knocks": ("clatter", "knocks", "crackle"),
    "tones and voices": ("music", "alarm", "animals"),
    "changing mixture": ("mixture",),
}


def noise_family(label: str) -> str:
    """Family of a noise label; "several" for two different noises at a time.

    >>> noise_family("fan"), noise_family("fan+rain"), noise_family("street")
    ('steady', 'several', 'street')
    """
    if "+" in label:
        return "several"
    return next((family for family, kinds in FAMILIES.items() if label in kinds), label)


def snr_band(snr_db: float, width: float = 5.0) -> str:
    """The band an SNR lies in, as "0 to 5 dB"; it holds its lower edge.

    >>> snr_band(-0.1), snr_band(0.0), snr_band(3.0, width=2.5)
    ('-5 to 0 dB', '0 to 5 dB', '2.5 to 5 dB')
    """
    band = np.floor(round(snr_db / width, 9)) + 0.0  # 0.3 / 0.1 is a little below 3, and -0 would be shown as such
    return f"{band * width:g} to {(band + 1) * width:g} dB"
