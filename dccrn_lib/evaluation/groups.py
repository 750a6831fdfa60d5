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
    """The band an SNR lies in, as "0 to 5 dB".

    >>> snr_band(-0.1), snr_band(0.0)
    ('-5 to 0 dB', '0 to 5 dB')
    """
    low = int(np.floor(snr_db / width) * width)
    return f"{low} to {low + width:g} dB"
