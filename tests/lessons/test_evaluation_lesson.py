"""Lesson 06: its figures, its widgets, its exercises."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.colors import to_hex

from dccrn_lib.lessons.evaluation import exercises
from dccrn_lib.lessons.evaluation import figures as draw
from dccrn_lib.lessons.evaluation import figures_inside as inside
from dccrn_lib.lessons.evaluation import widgets as widget
from dccrn_lib.lessons.plotting import COLOURS


@pytest.fixture
def items():
    noisy = [
        {"snr_db_in": s, "label": k, "si_snr_db": s, "pesq_wb": 1.1}
        for s, k in ((-4.0, "fan"), (2.0, "fan"), (3.0, "babble"), (9.0, "fan+rain"))
    ]
    student = [{**row, "si_snr_db": row["si_snr_db"] + 1 + i, "pesq_wb": 1.3} for i, row in enumerate(noisy)]
    student[1] = {**student[1], "pesq_wb": None}
    return {"noisy": noisy, "student": student}


# ---- figures


def test_responses_put_more_damage_to_the_right():
    scores = [{"si_snr_db": 1.0, "pesq_wb": 2.0, "pesq_nb": 3.0, "stoi": 0.5}] * 2
    figure = draw.responses({"delay (samples)": ([0, 40], scores), "bandwidth (kHz)": ([8.0, 1.0], scores)})
    axes = np.array(figure.axes).reshape(4, 2)
    assert [a.get_ylabel() for a in axes[:, 0]] == ["SI-SNR (dB)", "WB-PESQ", "NB-PESQ", "STOI"]
    assert [a.get_xlabel() for a in axes[-1]] == ["delay (samples)", "bandwidth (kHz)"]
    assert axes[0, 1].xaxis_inverted() and not axes[0, 0].xaxis_inverted()


def test_one_number_many_sounds_names_the_damages():
    figure = draw.one_number_many_sounds({"clipping": {"pesq_wb": 1.7, "stoi": 0.9}})
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["clipping"]
    assert [a.get_xlabel() for a in figure.axes] == ["WB-PESQ", "STOI"]
    assert [[t.get_text() for t in a.texts] for a in figure.axes] == [["1.70"], ["0.90"]]
    assert figure.axes[1].get_xlim() == (0.8, 1.0)


def test_pairs_leave_out_what_has_no_score(items):
    axis = draw.pairs(items, "student", "noisy", "pesq_wb").axes[0]
    assert sum(len(points.get_offsets()) for points in axis.collections) == 3
    assert [t.get_text() for t in axis.get_legend().get_texts()][1:] == [
        f"input SNR {low} to {low + 5} dB" for low in (-5, 0, 5)
    ]
    assert axis.get_ylabel() == "student alone: WB-PESQ" and axis.get_xlabel() == "noisy: WB-PESQ"


def test_interval_falls_with_the_root_of_the_count():
    axis = draw.interval_by_count([1.0, -1.0, 1.0, -1.0], [0.1, -0.1], 0.05, "PESQ").axes[0]
    unpaired, paired, wanted = axis.lines
    n, half = paired.get_xdata(), paired.get_ydata()
    assert np.allclose(half * np.sqrt(n), 1.96 * np.std([0.1, -0.1], ddof=1))
    assert (unpaired.get_ydata() > half).all() and wanted.get_ydata()[0] == 0.05
    assert axis.get_xscale() == axis.get_yscale() == "log"


def test_groups_show_counts_and_colours():
    groups = {"0 to 5 dB": {"student": (1.0, 0.5, 1.5, 3)}, "5 to 10 dB": {"student": (2.0, math.nan, math.nan, 1)}}
    axis = draw.by_group(groups, "SI-SNR over noisy (dB)").axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["0 to 5 dB\nn = 3", "5 to 10 dB\nn = 1"]
    assert [bar.get_height() for bar in axis.patches] == [1.0, 2.0]
    assert to_hex(axis.patches[0].get_facecolor()) == COLOURS["student"]


def test_chance_curves_end_in_all_right():
    axis = draw.chance_of_guessing((5, 10), widget.abx_p_value).axes[0]
    assert [line.get_ydata()[-1] for line in axis.lines[:2]] == [2**-5, 2**-10]
    assert [t.get_text() for t in axis.texts] == ["5 trials", "10 trials", "0.05"]
    assert len({line.get_marker() for line in axis.lines}) == 3  # colour is not the only key


def test_stages_stand_in_order_with_their_consequences():
    words = [t.get_text() for t in inside.pesq_stages().axes[0].texts]
    places = [
        next(i for i, w in enumerate(words) if w.startswith(start)) for start in ("level", "time", "power", "loud")
    ]
    assert places == sorted(places) and "deaf to gain" in words and words[-1] == "PESQ"
    assert [t.get_text() for t in inside.stoi_stages().axes[0].texts][-1] == "STOI"


def test_envelopes_share_one_scale_and_frame_the_piece():
    figure = inside.envelopes(
        {"clean": np.full((15, 40), 10.0), "noisy": np.ones((15, 40))}, range(15), 0.5, (3, 10, 8)
    )
    clean, noisy = (axis.images[0].get_array() for axis in figure.axes[:2])
    assert np.allclose(clean, 0) and np.allclose(noisy, -20)
    frame = figure.axes[0].patches[0]
    assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((5.0, 2.5), 4.0, 1)


def test_agreement_is_a_picture_and_a_mean_by_band():
    values = np.stack([np.full(6, 0.25), np.full(6, 0.75)])
    figure = inside.agreement({"noisy": values}, [150, 300], 0.1)
    assert figure.axes[0].images[0].get_clim() == (0, 1)
    assert figure.axes[1].lines[0].get_xdata().tolist() == [0.25, 0.75]


def test_one_piece_prints_its_correlation():
    curves = {"clean": np.arange(3.0), "noisy": np.ones(3)}
    texts = [t.get_text() for t in inside.one_piece(curves, curves, {"noisy": 0.125}).axes[1].get_legend().get_texts()]
    assert texts == ["clean", "noisy, correlation 0.12"]


def test_disturbances_are_signed_and_summed_over_bands():
    loud, d = np.ones((4, 5)), np.full((4, 5), -2.0)
    figure = inside.disturbances(loud, {"noisy": (loud, d, np.full((4, 5), 3.0))}, [0.3, 1, 2, 5], 0.1)
    top, curve, curve_a = (figure.axes[i] for i in (0, 2, 4))
    low, high = figure.axes[3].images[0].get_clim()
    assert top.images and low == -high  # white is no difference
    assert [figure.axes[i].get_ylabel() for i in (0, 3, 5)] == ["frequency (kHz)"] * 3
    assert curve.lines[0].get_ydata().tolist() == [8.0] * 5 and curve_a.lines[0].get_ydata().tolist() == [12.0] * 5


def test_points_against_pesq_have_one_marker_for_a_damage():
    figure = inside.against_pesq([("noisy", 20, 50, 1.1), ("noisy", 10, 20, 1.4), ("clipped", 8, 5, 2.0)])
    alone, both = figure.axes
    assert [len(line.get_xdata()) for line in both.lines] == [2, 1]
    assert alone.lines[0].get_xdata().tolist() == [20, 10] and both.lines[0].get_xdata().tolist() == [50, 20]


# ---- widgets


def test_p_value_is_the_binomial_tail():
    assert widget.abx_p_value(0, 7) == 1.0
    assert widget.abx_p_value(8, 10) == pytest.approx(56 / 1024)


def test_session_counts_right_answers_and_judges_at_the_end():
    session = widget.ABXSession(trials=6, seed=3)
    assert set(session.hidden) == {"A", "B"} and session.hidden == widget.ABXSession(6, 3).hidden
    assert session.summary().startswith("6 trials")
    for letter in list(session.hidden):
        assert session.answer(letter)
    assert session.finished and "6 of 6 right" in session.summary() and "you hear a difference" in session.summary()
    other = widget.ABXSession(trials=2, seed=3)
    for letter in list(other.hidden):
        assert not other.answer("B" if letter == "A" else "A")
    assert "0 of 2 right" in other.summary() and "no evidence" in other.summary()


def test_buttons_advance_the_test_and_reveal_at_the_end():
    a, b = [np.full(400, 0.1)], [np.full(400, -0.1)]
    box = widget.abx_test(a, b, trials=2, seed=0, names=("first", "second"))
    text, sound, buttons = box.children
    assert sound.value.count("<audio") == 3 and "2 trials" in text.value
    buttons.children[0].click()
    assert "of 1 right" in text.value
    buttons.children[1].click()
    assert "A was first, B was second" in text.value and buttons.children[0].disabled and not sound.value


def test_x_is_one_of_the_two():
    a, b = [np.full(4000, 0.5)], [np.zeros(4000)]
    for seed in range(4):
        sounds = widget.abx_test(a, b, trials=1, seed=seed).children[1].value.split("base64,")[1:]
        decoded = (soundfile.read(io.BytesIO(base64.b64decode(part.split('"')[0])))[0] for part in sounds)
        first, second, hidden = (float(np.abs(v).mean()) for v in decoded)
        assert first > 0.4 and second < 0.01
        assert (hidden > 0.4) == (widget.ABXSession(1, seed).x == "A")


def test_improvements_are_paired_with_the_same_mixture(items):
    everything = widget.improvements(items, "si_snr_db", -99, 99)["all"]["student"]
    assert everything[0] == pytest.approx(2.5) and everything[3] == 4
    low = widget.improvements(items, "si_snr_db", -5, 3)["all"]["student"]
    assert low[0] == pytest.approx(1.5) and low[3] == 2  # 3 dB belongs to the next band
    assert widget.improvements(items, "pesq_wb", -99, 99)["all"]["student"][3] == 3
    groups = widget.improvements(items, "si_snr_db", -99, 99, group=lambda row: row["label"])
    assert list(groups)[0] == "fan" and set(groups) == {"fan", "babble", "fan+rain"}


def test_band_view_and_browser(items):
    text, figure = widget.band_view(items, "si_snr_db", 0, 5)
    assert text == "0 to 5 dB, n = 2: student alone +2.50" and len(figure.axes[0].patches) == 2
    assert widget.band_view(items, "si_snr_db", 50, 60) == ("no mixture between 50 and 60 dB", None)
    box = widget.band_browser(items)
    (band, metric), text, picture = box.children[0].children, *box.children[1:]
    before = picture.value
    band.value = (0, 5)
    assert "n = 2" in text.value and picture.value != before
    metric.value = "pesq_wb"
    assert "n = 1" in text.value


# ---- exercises


@pytest.mark.parametrize("name", ["gain", "cluster_interval", "guessing"])
def test_solutions_are_right_and_no_answer_is_not(name):
    check = getattr(exercises, f"check_{name}")
    assert check(getattr(exercises, f"solution_{name}"))
    assert not check(None) and repr(check(None)).startswith("Not yet: give a function")


def test_items_solution_and_no_answer():
    assert exercises.check_items(exercises.solution_items())
    assert not exercises.check_items(None)


def in_place_without_means(s, e):
    s -= s.mean()
    e -= e.mean()
    return s @ e / (s @ s)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda s, e: abs(s @ e / (s @ s)), "sign is lost"),
        (lambda s, e: s @ e / (e @ e), "clean signal's power"),
        (lambda s, e: np.sqrt((e @ e) / (s @ s)), "ratio of RMS"),
        (lambda s, e: s @ e / np.sqrt((s @ s) * (e @ e)), "correlation"),
        (lambda s, e: -exercises.solution_gain(s, e), "sign is turned"),
        (lambda s, e: exercises.solution_gain(s - s.mean(), e - e.mean()), "you removed the means"),
        (in_place_without_means, "you removed the means"),
        (lambda s, e: max(-1.0, min(1.0, s @ e / (s @ s))), "2.5 clean + noise - 1"),
        (lambda s, e: 3.0, "yours is 3.000"),
        (lambda s, e: None, "one number"),
    ],
)
def test_wrong_gains(answer, message):
    verdict = exercises.check_gain(answer)
    assert not verdict and message in verdict.message


@pytest.mark.parametrize(
    "answer",
    [
        lambda s, e: torch.dot(s, e) / torch.dot(s, s),
        lambda s, e: (s * e).sum() / s.square().sum(),
        lambda s, e: s @ e / (s @ s),
    ],
)
def test_a_gain_of_tensors_is_one_too(answer):
    assert exercises.check_gain(answer)


def drawn_voices(draw, below: float = 0.025, resamples: int = 4000):
    """An answer to the second exercise whose mean of a draw is ``draw(values, voices, names, random generator)``."""

    def answer(values, voices):
        rng, names = np.random.default_rng(5), np.unique(voices)
        means = [draw(values, voices, names, rng) for _ in range(resamples)]
        return tuple(np.quantile(means, [below, 1 - below]))

    return answer


def all_of(values, voices, names):
    return np.concatenate([values[voices == name] for name in names])


def many(names, rng):
    return rng.choice(names, len(names))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            drawn_voices(lambda v, w, names, rng: rng.choice(v, len(v)).mean()),
            "20 mixtures of one voice are not 20 voices",
        ),
        (drawn_voices(lambda v, w, names, rng: v[np.isin(w, many(names, rng))].mean()), "with its mixtures twice"),
        (
            drawn_voices(lambda v, w, names, rng: np.mean([rng.choice(v[w == n]) for n in many(names, rng)])),
            "take all mixtures",
        ),
        (
            drawn_voices(lambda v, w, names, rng: np.mean([v[w == n].mean() for n in many(names, rng)])),
            "mean of the voices' means",
        ),
        (drawn_voices(lambda v, w, names, rng: all_of(v, w, many(names, rng)).mean(), 0.05), "middle 90 %"),
        (
            drawn_voices(lambda v, w, names, rng: all_of(v, w, rng.permutation(names)).mean(), resamples=9),
            "WITH replacement",
        ),
        (lambda v, w: (0.2, 0.1), "low comes first"),
        (lambda v, w: (0.1, 0.2), "yours [0.10, 0.20]"),
        (lambda v, w: 1.0, "two numbers"),
        (lambda v, w: ("low", "high"), "two numbers"),
    ],
)
def test_wrong_intervals_over_voices(answer, message):
    verdict = exercises.check_cluster_interval(answer)
    assert not verdict and message in verdict.message


@pytest.mark.parametrize("seed", range(3))
def test_an_interval_over_voices_may_be_drawn_in_any_way(seed: int):
    """Other random numbers, voices in another order, 2000 draws, and the mixtures of a drawn voice drawn again."""
    rng = np.random.default_rng(seed)
    plain = drawn_voices(lambda v, w, names, _: all_of(v, w, many(names[::-1], rng)).mean(), resamples=2000)
    nested = drawn_voices(lambda v, w, names, _: _nested(v, w, names, rng), resamples=2000)
    assert exercises.check_cluster_interval(plain) and exercises.check_cluster_interval(nested)
    assert exercises.check_cluster_interval(lambda values, voices: torch.tensor(plain(values, voices)))


def _nested(values, voices, names, rng):
    groups = [values[voices == name] for name in many(names, rng)]
    return np.concatenate([rng.choice(group, len(group)) for group in groups]).mean()


def test_a_voice_that_matters_widens_the_interval():
    values, voices = exercises.voices_case(exercises.VOICE_CASES[0])
    low, high = exercises.solution_cluster_interval(values, voices)
    item_low, item_high = exercises.solution_cluster_interval(values, np.arange(len(values)))
    assert high - low > 3 * (item_high - item_low)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (9.8, "square it"),
        (385, "not the full width"),
        (24, "0.1 wide"),
        (25, "1.96 is missing"),
        (196, "that is for four of five"),
        (26, "solve"),
        (96, "round up"),
        (1000, "solve"),
        ("many", "one number"),
    ],
)
def test_wrong_items(answer, message):
    verdict = exercises.check_items(answer)
    assert not verdict and message in verdict.message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda c, n: math.comb(n, c) / 2**n, "exactly 8"),
        (lambda c, n: exercises.solution_guessing(c + 1, n), "more than 8"),
        (lambda c, n: 2 * exercises.solution_guessing(c, n), "one side"),
        (lambda c, n: 0.5**c, "in a row"),
        (lambda c, n: 1 - exercises.solution_guessing(c, n), "other tail"),
        (lambda c, n: 0.3, "yours is 0.3000"),
        (lambda c, n: exercises.solution_guessing(c, 10), "for 5 of 5 the probability is 0.0312"),
        (lambda c, n: sum(math.comb(n, k) for k in range(c, 11)) / 2**n, "for 9 of 12"),
        (lambda c, n: "x", "one number"),
    ],
)
def test_wrong_guesses(answer, message):
    verdict = exercises.check_guessing(answer)
    assert not verdict and message in verdict.message
