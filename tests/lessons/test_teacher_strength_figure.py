"""The figure of gain over lead draws what the record holds."""

from __future__ import annotations

import pytest

from dccrn_lib.lessons.distillation.figures_strength import APART, HOLLOW, WAYS, gain_over_lead


def record() -> dict:
    """Two teachers, two seeds, two ways; the gain is the lead's tenth, less 0.1 dB for each seed's number."""
    points, rows = [], []
    for moment, step in (("early", 60), ("late", 300)):
        for way in ("output", "at_kl_softmax"):
            for lead, teacher in ((4.0, "final"), (1.0, "1h"), (1.2, "mini")):
                rows.append(
                    {
                        "moment": moment,
                        "way": way,
                        "teacher": teacher,
                        "lead_db": lead,
                        "gain_db": lead / 10,
                        "low": 0.0,
                        "high": 1.0,
                    }
                )
                for seed in (0, 1):
                    point = {"moment": moment, "way": way, "step": step, "lead_db": lead, "seed": seed}
                    points.append(point | {"gain_db": lead / 10 - 0.1 * seed})
    return {"rows": rows, "points": points}


def test_means_are_ordered_by_lead_with_their_intervals():
    figure = gain_over_lead(record())
    early, late = figure.axes
    assert early.get_title() == "early: after 60 steps" and late.get_title() == "late: after 300 steps"
    full, mini, *others = late.containers  # a way without rows is left out: two of each
    assert len(others) == 2 and full.get_label() == WAYS["output"][0]
    data, _caps, (bars,) = full.lines
    assert data.get_xdata().tolist() == pytest.approx([1.0 - APART, 4.0 - APART])
    assert data.get_ydata().tolist() == pytest.approx([0.1, 0.4])
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([0.0, 1.0])] * 2


def test_the_miniature_teacher_stands_apart():
    _, late = gain_over_lead(record()).axes
    _, mini, *_ = late.containers
    data = mini.lines[0]
    assert data.get_xdata().tolist() == pytest.approx([1.2 - APART]) and data.get_markerfacecolor() == "white"


def test_the_legend_names_each_way_once_and_the_hollow_mark_for_all():
    (legend,) = gain_over_lead(record()).legends
    assert [t.get_text() for t in legend.get_texts()] == [WAYS[w][0] for w in ("output", "at_kl_softmax")] + [HOLLOW]


def test_every_seed_is_a_point():
    _, late = gain_over_lead(record()).axes
    seeds = [line for line in late.lines if line.get_linestyle() == "None" and line.get_alpha()]
    assert sorted(len(line.get_xdata()) for line in seeds) == [0, 6, 6]  # the way without rows has none
