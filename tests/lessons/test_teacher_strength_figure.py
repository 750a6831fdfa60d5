"""The figure of gain by teacher draws what the record holds."""

from __future__ import annotations

import pytest

from dccrn_lib.lessons.distillation.figures_strength import TEACHERS, WAYS, gain_by_teacher
from dccrn_lib.results.records import load_result


def record() -> dict:
    """Three teachers, two ways; the gain is the lead's tenth, and late half a dB more."""
    points, rows = [], []
    for moment, step in (("early", 60), ("late", 300)):
        for way in ("output", "at_kl_softmax"):
            for lead, teacher in ((4.0, "17.4h"), (1.0, "1h"), (1.2, "mini")):
                gain = lead / 10 + 0.5 * (moment == "late")
                row = {"moment": moment, "way": way, "teacher": teacher, "lead_db": lead, "gain_db": gain}
                rows.append(row | {"low": gain - 0.25, "high": gain + 0.25})
            points.append({"moment": moment, "way": way, "step": step})
    return {"rows": rows, "points": points}


def test_a_panel_for_each_way_and_a_row_for_each_teacher_by_lead():
    figure = gain_by_teacher(record())
    late, other, early, _ = figure.axes  # a way without rows is left out
    assert [axis.get_title() for axis in (late, other)] == [WAYS[way][0] for way in ("output", "at_kl_softmax")]
    assert late.get_ylabel() == "late: after 300 steps" and early.get_ylabel() == "early: after 60 steps"
    names = [t.get_text() for t in late.get_yticklabels()]
    assert names == ["full size, 1 h\n(lead +1.0 dB)", "miniature\n(lead +1.2 dB)", "full size, 17.4 h\n(lead +4.0 dB)"]


@pytest.mark.parametrize(("panel", "more"), [(0, 0.5), (2, 0.0)])
def test_dots_stand_in_their_intervals_beside_zero(panel, more):
    *lines, zero = gain_by_teacher(record()).axes[panel].lines
    assert list(zero.get_xdata()) == [0.0, 0.0]
    gains = [0.1 + more, 0.12 + more, 0.4 + more]
    assert [line.get_xdata()[0] for line in lines[1::2]] == pytest.approx(gains)
    for place, (line, gain) in enumerate(zip(lines[::2], gains, strict=True)):
        assert list(line.get_xdata()) == pytest.approx([gain - 0.25, gain + 0.25])
        assert list(line.get_ydata()) == [place, place]


def test_every_way_and_teacher_of_the_published_record_has_a_name():
    rows = load_result("teacher_strength")["rows"]
    assert {row["way"] for row in rows} == set(WAYS) and {row["teacher"] for row in rows} == set(TEACHERS)
    figure = gain_by_teacher(load_result("teacher_strength"))
    assert len(figure.axes) == 6 and all(len(axis.lines) == 9 for axis in figure.axes)
