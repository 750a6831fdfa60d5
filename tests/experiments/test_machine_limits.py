"""The machine's limits: what a floor is made of. No time is asserted."""

from __future__ import annotations

import pytest

from dccrn_lib.experiments import machine_limits
from dccrn_lib.networks.cost import count_macs
from dccrn_lib.networks.presets import build_model


def test_limits_are_rates():
    limits = machine_limits.arithmetic_limits(quick=True)
    assert set(limits) <= {"fp32", "bf16"} and limits["fp32"] > 1e6
    assert machine_limits.copied_bytes_per_second(quick=True) > 1e6


def test_floor_is_multiply_adds_over_rate():
    model = build_model("distil_dccrn_mini")
    assert machine_limits.arithmetic_floor(model, 10.0, 1e9) == pytest.approx(count_macs(model, 10.0) / 1e9)


def test_best_is_the_shortest(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0])
    monkeypatch.setattr(machine_limits.time, "perf_counter", lambda: next(clock))
    assert machine_limits.best_seconds(lambda: None, repeats=3) == 2.0
