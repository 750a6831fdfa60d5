"""The rate of mixtures: what is measured is what was named."""

from __future__ import annotations

import pytest

from dccrn_lib.experiments.data_speed import measure_data
from dccrn_lib.runtime.errors import ConfigError


def test_rooms_alone_are_refused_not_ignored():
    with pytest.raises(ConfigError, match="--rir goes with --speech and --noise"):
        measure_data({"speech": "", "noise": "", "rir": "rir.jsonl"})
