"""Mixtures are what they were: names, ratios, levels and samples of every way to mix, against pinned numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.corpus.pinned import KINDS, PINS, made_corpus, prints


@pytest.fixture(scope="module")
def now(tmp_path_factory):
    return prints(made_corpus(tmp_path_factory.mktemp("pinned")))


@pytest.mark.parametrize("kind", KINDS)
def test_mixtures_are_those_that_were_pinned(now, kind):
    pinned = json.loads(PINS.read_text(encoding="utf-8"))[kind]
    assert len(pinned) == len(now[kind])
    for was, item in zip(pinned, now[kind], strict=True):
        assert {k: item[k] for k in ("label", "speaker", "id")} == {k: was[k] for k in ("label", "speaker", "id")}
        assert item["snr_db"] == pytest.approx(was["snr_db"], rel=1e-12)
        for part in ("noisy", "clean"):
            assert np.allclose(item[part], was[part], rtol=1e-5, atol=1e-5 * was[part][0])
