"""Lesson 05: its figures, its widget, its exercises."""

from __future__ import annotations

import math

import nbformat
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from dccrn_lib.distillation import FeatureTap
from dccrn_lib.evaluation import Difference
from dccrn_lib.lessons.built.distillation import my_loss
from dccrn_lib.lessons.distillation import exercises
from dccrn_lib.lessons.distillation import figures as draw
from dccrn_lib.lessons.distillation import widgets as widget
from dccrn_lib.lessons.plotting import COLOURS
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import notebooks_dir
from dccrn_lib.training.profiles import get_profile


def history(start: float) -> dict:
    train = [{"step": 10 * k, "hours": 0.1 * k, "clean": start - k, "clean_std": 0.5} for k in (1, 2)]
    valid = [{"step": 10 * k, "hours": 0.1 * k, "si_snr_db": 5.0 + k, "noisy_si_snr_db": 4.0} for k in (1, 2)]
    return {"train": train, "valid": valid}


# ---- figures


def test_training_step_says_what_is_frozen_and_what_is_averaged():
    texts = [text.get_text() for text in draw.training_step().axes[0].texts]
    assert "teacher\neval, no gradient" in texts and "student\nlearns" in texts
    assert "gradient,\nclipped" in texts and any("average" in text for text in texts)


def test_first_steps_draw_every_batch_and_the_mean_of_ten():
    log = [{"clean": k + 2.0, "noisy": 2.0, "features": 0.5} for k in range(12)]
    left, right = draw.first_steps(log).axes
    dots, smooth, zero = left.lines
    assert zero.get_ydata()[0] == 0 and list(dots.get_ydata()) == list(range(12))
    assert smooth.get_xdata().tolist() == [4.5, 5.5, 6.5] and smooth.get_ydata().tolist() == pytest.approx(
        [4.5, 5.5, 6.5]
    )
    assert left.get_ylabel().endswith("(dB)") and right.get_ylabel().endswith("(nat)")
    assert right.lines[1].get_ydata() == pytest.approx(0.5) and right.get_ylim()[0] == 0


def test_curves_have_a_band_and_a_panel_for_each_system_and_the_noisy_line():
    figure = draw.learning_curves({"student": history(-3), "teacher": history(-2)})
    valid, *panels = figure.axes
    assert valid.get_xlabel() == "audio seen (h)" and valid.get_ylabel() == "SI-SNR (dB)"
    assert [to_hex(line.get_color()) for line in valid.lines[:2]] == [COLOURS["student"], COLOURS["teacher"]]
    assert valid.lines[-1].get_ydata()[0] == 4.0
    assert [len(panel.collections) for panel in panels] == [1, 1]  # one band, and it is the system's own
    band = panels[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(-5.5) and band[:, 1].max() == pytest.approx(-3.5)
    assert [to_hex(line.get_color()) for line in panels[0].lines] == [COLOURS["student"], "#888888"]
    assert [line.get_marker() for line in valid.lines[:2]] == ["o", "^"]  # colour is not the only key
    styles = [line.get_linestyle() for line in valid.lines[:2]]
    assert styles[0] != styles[1]
    assert [[line.get_linestyle() for line in panel.lines] for panel in panels] == [styles, styles]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        *("student alone", "teacher", "noisy"),
        "grey, right: the other systems",
    ]


def test_schedule_shows_every_step():
    axis = draw.schedule([1e-3, 2e-3]).axes[0]
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([1.0, 2.0]) and axis.get_xlabel() == "step"


def test_distance_figures_name_layers_and_units():
    axis = draw.distance_by_layer({"untrained": {"encoder.0": 1.0}, "student": {"encoder.0": 0.1}}).axes[0]
    assert axis.get_yscale() == "log" and "(nat)" in axis.get_ylabel()
    assert [t.get_text() for t in axis.get_xticklabels()] == ["E0"]
    assert [line.get_ydata()[0] for line in axis.lines] == [1.0, 0.1]


def test_profiles_are_shown_over_an_even_spread_on_the_axis_of_their_bins():
    spreads = {"encoder.5": {"teacher": [0.5, 0.3, 0.1, 0.1], "student": [0.25] * 4}, "decoder.0": {"teacher": [1.0]}}
    figure = draw.profiles(spreads, {"teacher": "large teacher", "student": "large student"})
    first, second = figure.axes
    heights = [patch.get_data() for patch in first.patches]
    assert heights[0].values.tolist() == pytest.approx([2.0, 1.2, 0.4, 0.4]) and heights[1].values.tolist() == [1.0] * 4
    assert heights[0].edges.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert [axis.get_title() for axis in (first, second)] == ["encoder.5, 4 bins", "decoder.0, 1 bins"]
    assert [to_hex(patch.get_edgecolor()) for patch in first.patches] == [COLOURS["teacher"], COLOURS["student"]]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["large teacher", "large student"]


def test_paired_differences_are_sorted_and_coloured_by_who_won():
    axis = draw.paired_differences([0.5, -1.0], Difference(-0.25, -1.0, 0.5, 2)).axes[0]
    heights = [bar.get_height() for bar in axis.patches[:2]]
    assert heights == [-1.0, 0.5]
    assert [to_hex(bar.get_facecolor()) for bar in axis.patches[:2]] == [COLOURS["student"], COLOURS["student_at_kl"]]
    assert axis.get_ylabel() == "student with AT-KL\nminus alone (dB)"


def test_sweep_figure_leaves_out_the_baseline():
    rows = [
        {"method": "none", "seeds": 2, "difference": None, "low": None, "high": None},
        {"method": "output", "seeds": 1, "difference": 0.1, "low": None, "high": None},
        {"method": "at_kl", "seeds": 2, "difference": 0.3, "low": -0.1, "high": 0.7},
    ]
    axis = draw.sweep(rows).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["output (1 seeds)", "at_kl (2 seeds)"]
    assert [list(line.get_xdata()) for line in axis.lines][:3] == [[0.1], [0.3], [-0.1, 0.7]]


def test_gains_have_a_panel_a_metric_and_the_first_system_on_top():
    d = {name: Difference(mean, mean - 0.5, mean + 0.5, 4) for name, mean in (("student", 1.0), ("teacher", 2.0))}
    axis, other = draw.gains({"si_snr_db": d, "stoi": d}, {"si_snr_db": "SI-SNR (dB)", "stoi": "STOI"}).axes
    assert (axis.get_xlabel(), other.get_xlabel()) == ("SI-SNR (dB)", "STOI")
    assert [t.get_text() for t in axis.get_yticklabels()] == ["teacher", "student alone"]
    assert [list(line.get_xdata()) for line in axis.lines[:4]] == [[2.0], [1.5, 2.5], [1.0], [0.5, 1.5]]
    assert len(axis.get_xticks()) <= 5  # two of them may lie outside


def test_seeds_and_their_mean_are_read_from_the_record():
    rows = [
        {"seed": "0", "stoi": "+0.0048 [+0.0030, +6.7e-03] better"},
        {"seed": "mean of 2", "stoi": "-0.001 [-0.005, +0.003] not distinguishable"},
    ]
    axis = draw.over_seeds(rows, {"stoi": "STOI"}).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["mean of 2", "seed 0"]
    assert [list(line.get_xdata()) for line in axis.lines[:4]] == [[-0.001], [-0.005, 0.003], [0.0048], [0.003, 0.0067]]


# ---- widget


class Mixtures:
    """Two mixtures that differ."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict:
        x = torch.randn(1600, generator=torch.Generator().manual_seed(index)) / 8
        return {"noisy": x, "clean": x / 2, "label": f"noise{index}", "snr_db": 3.0, "id": f"m{index}"}


def test_before_after_runs_the_system():
    torch.manual_seed(0)
    model = build_model("distil_dccrn_mini").eval()
    item = Mixtures()[0]
    figure, signals = widget.before_after(item, "student", {"student": model})
    assert [a.get_title() for a in figure.axes[:3]] == ["noisy", "student alone", "clean"]
    with torch.no_grad():
        assert torch.equal(signals["student"], model(item["noisy"][None])[0])
    assert torch.equal(signals["noisy"], item["noisy"])


def test_moving_the_slider_changes_picture_sound_and_caption():
    box = widget.mixture_browser(Mixtures(), {"student": build_model("distil_dccrn_mini").eval()})
    (index, _system), caption, picture, sound = box.children[0].children, *box.children[1:]
    before = (caption.value, picture.value, sound.value)
    index.value = 1
    assert "noise1" in caption.value
    assert all(a != b for a, b in zip(before, (caption.value, picture.value, sound.value), strict=True))


# ---- exercises


@pytest.mark.parametrize("name", ["choose_a", "rate"])
def test_solutions_are_right_and_no_answer_is_not(name):
    check = getattr(exercises, f"check_{name}")
    assert check(getattr(exercises, f"solution_{name}"))
    assert not check(None) and "no answer yet" in repr(check(None))
    assert not check(3) and "give a function" in check(3).message


def test_hours_solution_and_no_answer():
    assert exercises.check_hours(exercises.solution_hours())
    assert not exercises.check_hours(None)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda c, t: t / (c + t), "swapped"),
        (lambda c, t: c / t, "this is a ratio"),
        (lambda c, t: t / c, "this is a ratio"),
        (lambda c, t: 0.5, "the stronger gradient still pulls harder"),
        (lambda c, t: c**2 / (c**2 + t**2), "not their squares"),
        (lambda c, t: 0.75, "right for norms 60 and 20, but not for 1 and 4"),
        (lambda c, t: c / 80, "right for norms 60 and 20"),
        (lambda c, t: 0.6, "has the norm 24, the teacher's 12"),
        (lambda c, t: None, "one number"),
    ],
)
def test_wrong_choices_of_a(answer, message):
    verdict = exercises.check_choose_a(answer)
    assert not verdict and message in verdict.message


def test_the_chosen_a_makes_both_weighted_gradients_equal():
    for clean, teacher in ((60.0, 20.0), (1.0, 4.0)):
        a = exercises.solution_choose_a(clean, teacher)
        assert (1 - a) * clean == pytest.approx(a * teacher)


def step_with(slip: str = ""):
    """The step as a reader writes it, with one slip."""

    def step(student, teacher, batch, recipe, optimiser):
        a, b, (noisy, clean) = recipe.a, recipe.b, batch
        if slip not in ("training teacher", "loose teacher"):
            teacher.eval()
        grad = slip not in ("loose teacher", "gradient to the teacher")
        if slip == "eval student":
            student.eval()
        with torch.set_grad_enabled(not grad), FeatureTap(teacher) as shown:
            target = teacher(noisy)
        if slip == "teacher moves":
            with torch.no_grad():
                next(teacher.parameters()).mul_(1.1)
        with FeatureTap(student) as own:
            estimate = student(noisy)
            if slip == "twice":
                student(noisy)
        features = {k: v.detach() for k, v in own.features.items()} if slip == "cut" else own.features
        kl = recipe.at_kl(*((shown.features, features) if slip == "turned" else (features, shown.features)))[0]
        weights = {"no spectral": (0.0, 0.0), "spectral to clean": (20.0, 0.0), "spectral to teacher": (0.0, 20.0)}
        weights = weights.get(slip, (recipe.spectral_weight, recipe.spectral_weight))
        c, t = (my_loss(estimate, goal, w) for goal, w in zip((clean, target), weights, strict=True))
        wave = (1 - a) * c + a * t
        loss = {
            "no kl": wave,
            "kl without weight": wave + kl,
            "kl subtracted": wave - b * kl,
            "no output": c + b * kl,
            "output weighted away": (1 - a) * c + b * kl,
            "no clean": t + b * kl,
            "clean weighted away": a * t + b * kl,
            "swapped": a * c + (1 - a) * t + b * kl,
            "clean too heavy": c + a * t + b * kl,
            "alone": c,
            "only kl": b * kl,
            "odd": 2 * wave + b * kl,
        }.get(slip, wave + b * kl)
        if slip not in ("never cleared", "neither", "cleared late"):
            optimiser.zero_grad()
        loss.backward()
        if slip not in ("not clipped", "neither"):
            limit = {"clipped harder": 1.0, "clipped to 5": 5.0}.get(slip, recipe.clip)
            torch.nn.utils.clip_grad_norm_(student.parameters(), limit)
        if slip == "cleared late":
            optimiser.zero_grad()
        optimiser.step()
        if slip == "returns nothing":
            return None
        if slip == "returns nan":
            return math.nan
        if slip == "other loss later" and getattr(student, "stepped", False):
            return loss + 1
        student.stepped = True
        return loss.item() if slip == "a float" else loss

    return step


@pytest.mark.parametrize("slip", ["", "a float"])
def test_a_step_written_by_hand_is_right(slip):
    verdict = exercises.check_distil_step(step_with(slip))
    assert verdict and "has not moved" in verdict.message


def test_the_solution_of_the_step_is_right_and_no_answer_is_not():
    state = torch.random.get_rng_state()
    assert exercises.check_distil_step(exercises.solution_distil_step)
    assert torch.equal(state, torch.random.get_rng_state())
    assert "no answer yet" in exercises.check_distil_step(None).message
    assert "give a function" in exercises.check_distil_step(3).message

    def louder(student, teacher, batch, recipe, optimiser):
        batch[0].mul_(2)
        return exercises.solution_distil_step(student, teacher, batch, recipe, optimiser)

    assert "has changed its batch" in exercises.check_distil_step(louder).message
    assert "returns nothing yet" in exercises.check_distil_step(lambda *_: ...).message


@pytest.mark.parametrize(
    ("slip", "message"),
    [
        ("training teacher", "ran in training mode, and its BatchNorm"),
        ("gradient to the teacher", "a gradient reached the teacher"),
        ("loose teacher", "not frozen"),
        ("teacher moves", "the teacher's weights have moved"),
        ("eval student", "stays in training mode"),
        ("twice", "more than once"),
        ("no kl", "AT-KL term is left out of the loss"),
        ("kl without weight", "lacks its weight"),
        ("kl subtracted", "add it"),
        ("turned", "the student first"),
        ("no output", "the output term is left out"),
        ("output weighted away", "the output term is left out"),
        ("no clean", "the clean target is left out"),
        ("clean weighted away", "the clean target is left out"),
        ("swapped", "are swapped"),
        ("clean too heavy", "needs its weight 1 - recipe.a"),
        ("alone", "without a teacher"),
        ("only kl", "both waveform terms"),
        ("no spectral", "the spectral part is left out: my_loss"),
        ("spectral to clean", "the spectral part is left out against the teacher"),
        ("spectral to teacher", "the spectral part is left out against clean speech"),
        ("odd", "it should be"),
        ("never cleared", "gradients of earlier steps"),
        ("not clipped", "not clipped"),
        ("neither", "neither cleared"),
        ("cleared late", "does not move"),
        ("cut", "does not reach the student"),
        ("clipped to 5", "clipped to 5, whatever the recipe says"),
        ("clipped harder", "clear, backward, clip, step"),
        ("other loss later", "the losses are not"),
        ("returns nothing", "returns nothing yet"),
        ("returns nan", "one finite number"),
    ],
)
def test_slips_of_a_step_are_named(slip, message):
    verdict = exercises.check_distil_step(step_with(slip))
    assert not verdict and message in verdict.message


def rise(k: int, w: int) -> float:
    return min(1.0, (k + 1) / w)


def done(k: int, n: int, d: float) -> float:
    """Share of the fall that lies behind: 0 before it, 1 in step n."""
    return min(1.0, max(0.0, (k - (1 - d) * n) / (d * n)))


def half(q: float) -> float:
    return (1 + math.cos(math.pi * q)) / 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda k, n, p, w, d: p * min(1, k / w) * (0.02 + 0.98 * half(done(k, n, d))), "step 0 must already learn"),
        (lambda k, n, p, w, d: p * (0.02 + 0.98 * half(done(k, n, d))), "the rise is missing"),
        (lambda k, n, p, w, d: p * rise(k, w) * max(0.02, min(1, (n - k) / (d * n))), "the linear fall of section 4"),
        (lambda k, n, p, w, d: p * rise(k, w) * (0.02 + 0.98 * math.cos(math.pi / 2 * done(k, n, d))), "a quarter"),
        (lambda k, n, p, w, d: p * rise(k, w) * (0.02 + 0.98 * half(2 * done(k, n, d))), "a whole cosine"),
        (lambda k, n, p, w, d: p * rise(k, w) * (0.02 + 0.98 * half(k / n)), "not at step 0"),
        (lambda k, n, p, w, d: p * rise(k, w) * half(done(k, n, d)), "not at 0"),
        (lambda k, n, p, w, d: p * rise(k, w) * max(0.02, half(done(k, n, d))), "is not cut off"),
        (lambda k, n, p, w, d: p * rise(k, w), "the fall is missing"),
        (lambda k, n, p, w, d: (
            p * rise(k, w) * (0.02 + 0.98 * half(max(0, k - (1 - d) * n) / (d * n - 1)))), "one behind the last one"),
        (lambda k, n, p, w, d: p * min(rise(k, w), 0.02 + 0.98 * half(done(k, n, d))), "they are multiplied"),
        (lambda k, n, p, w, d: p * rise(k, 10) * (0.02 + 0.98 * half(max(0, k - n + 300) / 300)), "from the arguments"),
        (lambda k, n, p, w, d: exercises.solution_rate(k, n, 2.0, w, d), "from the arguments"),
        (lambda k, n, p, w, d: exercises.solution_rate(k, n, p, w, d) * (0.9 if k == 800 else 1), "the rate of step 800"),
        (lambda k, n, p, w, d: None, "one number"),
    ],
)  # fmt: skip
def test_wrong_rates(answer, message):
    verdict = exercises.check_rate(answer)
    assert not verdict and message in verdict.message


def test_the_rate_is_half_way_in_the_middle_of_its_fall():
    rates = [exercises.solution_rate(k, 1000, 2.0, 10, 0.3) for k in range(1000)]
    assert rates[0] == pytest.approx(0.2) and set(rates[10:701]) == {2.0}
    assert rates[850] == pytest.approx(0.51 * 2.0) and 0.04 < rates[-1] < 0.0401


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (288_000, "seconds"),
        (4800, "minutes"),
        (10, "whole batch"),
        (80 / 3, "lasts 3 s"),
        (1, "hours ="),
        (math.nan, "one number"),
    ],
)
def test_wrong_hours(answer, message):
    verdict = exercises.check_hours(answer)
    assert not verdict and message in verdict.message


def test_all_systems_share_a_scale_and_a_bar():
    spectra = {"noisy": np.full((5, 8), 10.0), "student": np.full((5, 8), 1.0), "clean": np.zeros((5, 8), complex)}
    figure = draw.side_by_side(spectra, hop=100)
    shown = [axis.images[0].get_array() for axis in figure.axes[:3]]
    assert shown[0].shape == (2, 4)  # two by two points each
    assert np.allclose(shown[0], 0) and np.allclose(shown[1], -20) and np.allclose(shown[2], -120)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["noisy", "student alone", "clean"]
    assert [bar.get_xlabel() for bar in figure.axes[3].child_axes] == ["dB re the loudest point"]
    assert figure.axes[0].images[0].get_extent()[1] == pytest.approx(8 * 100 / 16000)


def test_points_are_mean_powers():
    spectrum = np.array([[3.0, 4.0j], [0.0, 0.0], [9.0, 9.0]])
    assert draw._two_by_two(spectrum) == pytest.approx(np.array([[2.5]]))


def test_a_shorter_training_of_the_lesson_warms_up_within_its_steps():
    lesson = nbformat.read(notebooks_dir() / "05_distillation.ipynb", as_version=4)
    (source,) = [c.source for c in lesson.cells if c.cell_type == "code" and c.source.startswith("steps = ")]
    for train_steps, wanted in ((80, (80, 8, 10)), (1800, (1800, 100, 225)), (0, None)):
        names = {"train_steps": train_steps, "sizes": get_profile("quick")}
        exec(source.splitlines()[0], names)
        keys = ("steps", "warmup_steps", "valid_every")
        assert names["steps"] == (dict(zip(keys, wanted, strict=True)) if wanted else {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_a_device_that_is_not_there_is_refused_in_the_first_cell():
    lesson = nbformat.read(notebooks_dir() / "05_distillation.ipynb", as_version=4)
    (source,) = [c.source for c in lesson.cells if c.cell_type == "code" and "lesson.start(seed)" in c.source]
    with pytest.raises(ConfigError, match="device 'cuda'"):
        exec(source, {"seed": 0, "device": "cuda", "profile": "smoke"})
