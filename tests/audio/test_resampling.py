"""The two filters between sampling rates, as the docstring of audio.resampling tells them apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from dccrn_lib.audio.resampling import _polyphase, resample


def _level_db(x: np.ndarray) -> float:
    """Of a sine of amplitude 1 after a filter, away from its ends."""
    return 20 * np.log10(np.sqrt(2) * x[3000:13000].std() + 1e-9)


@pytest.mark.parametrize(("hertz", "sinc_db", "polyphase_db"), [(1000, 0, 0), (7500, -3.0, -1.8), (9000, -100, -30.6)])
def test_both_filters_keep_speech_and_one_falls_more_steeply(hertz, sinc_db, polyphase_db):
    sine = np.sin(2 * np.pi * hertz * np.arange(48000) / 48000).astype(np.float32)
    sinc = _level_db(resample(sine[None], 48000, 16000)[0])
    assert sinc == pytest.approx(sinc_db, abs=0.1) if hertz < 8000 else sinc < sinc_db
    assert _level_db(resample_poly(sine, 1, 3)) == pytest.approx(polyphase_db, abs=0.1)


def test_a_filter_that_was_first_used_without_gradients_takes_them_later():
    _polyphase.cache_clear()
    with torch.inference_mode():
        resample(torch.zeros(1, 400), 22050, 16000)
    x = torch.zeros(1, 400, requires_grad=True)
    resample(x, 22050, 16000).sum().backward()
    assert x.grad is not None
