"""The figure of gain over lead draws what the record holds."""

from __future__ import annotations

import pytest

from dccrn_lib.lessons.distillation.figures_strength import WAYS, gain_over_lead


def record() -> dict:
    """Two teachers, two seeds, two ways; the gain is the lead's tenth, less 0.1 dB for each seed's number."""
    points, rows = [], []
    for moment, step in (("early", 60), ("late", 300)):
        for way in ("output", "at_kl_softmax"):
            for lead in (4.0, 1.0):
                rows.append(
                    {"moment": moment, "way": way, "lead_db": lead, "gain_db": lead / 10, "low": 0.0, "high": 1.0}
                )
                for seed in (0, 1):
                    point = {"moment": moment, "way": way, "step": step, "lead_db": lead, "seed": seed}
                    points.append(point | {"gain_db": lead / 10 - 0.1 * seed})
    return {"rows": rows, "points": points}


def test_means_are_ordered_by_lead_with_their_intervals():
    early, late = gain_over_lead(record()).axes
    assert early.get_title() == "early: after 60 steps" and late.get_title() == "late: after 300 steps"
    lines = {container.get_label(): container for container in late.containers}
    assert list(lines) == [WAYS["output"][0], WAYS["at_kl_softmax"][0]]  # a way without rows is left out
    data, _caps, (bars,) = lines[WAYS["output"][0]].lines
    assert data.get_xdata().tolist() == [1.0, 4.0] and data.get_ydata().tolist() == pytest.approx([0.1, 0.4])
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([0.0, 1.0])] * 2
    assert early.get_legend() is None and late.get_legend() is not None


def test_every_seed_is_a_point():
    _, late = gain_over_lead(record()).axes
    seeds = [line for line in late.lines if line.get_linestyle() == "None" and line.get_alpha()]
    assert sorted(len(line.get_xdata()) for line in seeds) == [4, 4]
