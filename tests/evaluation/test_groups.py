"""Groups of test items: every generated noise has a family, every SNR a band."""

from __future__ import annotations

from dccrn_lib.corpus.synthesis.noise import LABELS
from dccrn_lib.evaluation import groups


def test_every_generated_noise_has_a_family():
    known = [kind for kinds in groups.FAMILIES.values() for kind in kinds]
    assert sorted(known) == sorted(LABELS) and len(set(known)) == len(known)
    assert groups.noise_family("babble") == "speech-like" and groups.noise_family("a+b") == "several"


def test_bands_hold_their_lower_edge():
    assert [groups.snr_band(v) for v in (-5.0, -0.1, 0.0, 4.9, 15.0)] == [
        "-5 to 0 dB",
        "-5 to 0 dB",
        "0 to 5 dB",
        "0 to 5 dB",
        "15 to 20 dB",
    ]


def test_bands_of_fractional_widths_have_their_own_edges():
    values = (0.3, 0.25, -0.05, 0.0, -0.0)
    bands = ["0.3 to 0.4 dB", "0.2 to 0.3 dB", "-0.1 to 0 dB", "0 to 0.1 dB", "0 to 0.1 dB"]
    assert [groups.snr_band(v, 0.1) for v in values] == bands
    assert groups.snr_band(3.0, 2.5) == "2.5 to 5 dB" and groups.snr_band(-1.0, 2.5) == "-2.5 to 0 dB"
