"""Lesson 04: its figures, its widget, its exercises."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.distillation.at_kl import AttentionTransferKL
from dccrn_lib.distillation.attention import align_frames
from dccrn_lib.lessons.attention_transfer import figures as attention_transfer
from dccrn_lib.lessons.attention_transfer import widgets as widget
from dccrn_lib.lessons.attention_transfer.exercises import (
    check_at_kl,
    check_frame_position,
    check_kl,
    check_reduction,
    solution_at_kl,
    solution_frame_position,
    solution_kl,
    solution_reduction,
)
from dccrn_lib.lessons.built.attention_transfer import MyATKL
from dccrn_lib.lessons.plotting import COLOURS
from dccrn_lib.runtime.errors import ConfigError

LAYERS = ("encoder.0", "encoder.5", "decoder.5")
STFTS = {"teacher": STFTConfig(hop_length=160), "student": STFTConfig(), "student_at_kl": STFTConfig()}


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    sizes = {"encoder.0": 16, "encoder.5": 4, "decoder.5": 32}
    frames = {"teacher": 5, "student": 8, "student_at_kl": 8}
    return {n: {k: torch.randn(1, 4, f, t, generator=generator) for k, f in sizes.items()} for n, t in frames.items()}


# ---- figures


def test_attention_maps_share_seconds_and_kilohertz(features):
    maps = {k: {n: f[k].square().mean(1)[0].numpy() for n, f in features.items()} for k in LAYERS}
    figure = attention_transfer.attention_maps(maps, {n: s.hop_length for n, s in STFTS.items()})
    panels = figure.axes[:9]
    assert panels[-1].get_xlabel() == "time (s)" and panels[0].get_ylabel() == "freq (kHz)"
    assert all(p.images[0].get_extent()[1:] == [8 * 100 / 16000, 0, 8] for p in panels if "student" in p.get_title())
    assert {p.images[0].get_clim() for p in panels} == {attention_transfer.MAP_LIMITS}
    assert "teacher\nencoder.5: 4 x 5" in [p.get_title() for p in panels]


def test_map_db_is_relative_to_the_maximum_and_floored():
    assert attention_transfer.map_db(np.array([[10.0, 1.0, 0.0]]))[0].tolist() == pytest.approx([0.0, -10.0, -120.0])
    assert np.isfinite(attention_transfer.map_db(np.zeros((2, 2)))).all()


def test_thinned_maps_keep_their_mean_and_short_ones_are_left_alone():
    m = np.random.default_rng(0).random((3, 600))
    assert attention_transfer.thinned(m, 200).shape == (3, 200)
    assert attention_transfer.thinned(m, 200).mean() == pytest.approx(m.mean())
    assert np.array_equal(attention_transfer.thinned(m[:, :150], 200), m[:, :150])


def test_distributions_have_one_panel_a_layer_in_the_systems_colours():
    p = {k: {"teacher": np.full(8, 1 / 8), "student": np.full(8, 1 / 8)} for k in ("encoder.0", "decoder.1")}
    figure = attention_transfer.distributions(p)
    assert [a.get_title() for a in figure.axes if a.get_visible()] == ["encoder.0 (8 bins)", "decoder.1 (8 bins)"]
    assert figure.axes[0].get_ylabel() == "P(f)" and figure.axes[0].get_xlabel() == "freq (kHz)"
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["teacher", "student alone"]
    assert figure.axes[0].patches[0].get_edgecolor() == pytest.approx(plt.matplotlib.colors.to_rgba(COLOURS["teacher"]))


def test_no_line_is_told_apart_by_its_colour_alone():
    p = {n: np.full(8, 1 / 8) for n in ("student", "student_at_kl", "teacher")}
    axis = attention_transfer.distributions({"encoder.0": p}).axes[0]
    assert [patch.get_linestyle() for patch in axis.patches] == ["--", "-.", "-"]
    top = attention_transfer.divergence(p["teacher"], p["student"]).axes[0]
    assert [patch.get_linestyle() for patch in top.patches] == ["-", "--"]
    curves = {n: (np.arange(4.0), np.ones(4)) for n in ("student", "teacher")}
    assert [line.get_linestyle() for line in attention_transfer.frame_attention(curves).axes[0].lines] == ["--", "-"]
    bumps = attention_transfer.direction(*p.values()).axes[0].patches
    assert [patch.get_linestyle() for patch in bumps[1:]] == ["solid", "--"]


def test_many_bins_are_drawn_as_pairs():
    p = {"encoder.0": {"teacher": np.tile([1.0, 3.0], 64) / 256}}
    axis = attention_transfer.distributions(p).axes[0]
    assert axis.get_title() == "encoder.0 (128 bins, drawn in pairs)"
    assert axis.patches[0].get_data().values == pytest.approx(np.full(64, 1 / 128))


def test_divergence_bars_sum_to_the_number_in_the_title():
    figure = attention_transfer.divergence(np.array([0.5, 0.5]), np.array([0.25, 0.75]), "encoder.3")
    top, bottom = figure.axes
    assert top.get_title() == "encoder.3: KL = 0.144 nat"
    assert sum(bar.get_height() for bar in bottom.patches) == pytest.approx(0.1438, abs=1e-4)
    assert bottom.get_xlabel() == "freq (kHz)"


def test_layer_bars_and_descent_label_their_axes():
    values = {"teacher": [1.0, 2.0], "other": [3.0, 4.0]}
    axis = attention_transfer.layer_bars(values, ["encoder.0", "decoder.5"], "KL (nat)").axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["E0", "D5"]
    assert axis.get_ylabel() == "KL (nat)" and axis.get_yscale() == "linear"
    assert sorted(p.get_height() for p in axis.patches) == [1, 2, 3, 4]
    axis = attention_transfer.layer_bars(values, ["encoder.0", "decoder.5"], "KL (nat)", log=True).axes[0]
    assert axis.get_yscale() == "log" and not axis.patches  # a bar has no foot on a logarithmic axis
    assert [list(line.get_ydata()) for line in axis.lines] == [[1.0, 2.0], [3.0, 4.0]]
    left, right = attention_transfer.descent([3.0, 1.0], [3.0], [1.0], ["encoder.0"]).axes
    assert left.get_xlabel() == "step" and left.lines[0].get_ydata().tolist() == [3.0, 1.0]
    assert [line.get_ydata()[0] for line in right.lines] == [3.0, 1.0]


def test_frame_centres_are_those_of_the_alignment():
    axis = attention_transfer.frame_centres(STFTS["student"], STFTS["teacher"]).axes[0]
    student, teacher = axis.lines
    assert student.get_xdata()[:2].tolist() == [-6.25, 0.0]
    assert teacher.get_xdata()[:2].tolist() == [-2.5, 7.5]
    # a ramp of the teacher's drawn centres, aligned, gives the student's drawn centres
    ramp = torch.tensor(teacher.get_xdata(), dtype=torch.float32)
    aligned = align_frames(ramp, STFTS["teacher"], STFTS["student"], 9)
    drawn = student.get_xdata()
    inner = (drawn >= ramp[0].item()) & (drawn <= ramp[-1].item())
    assert inner.sum() >= 5
    assert aligned.numpy()[inner] == pytest.approx(drawn[inner], abs=1e-4)


def test_remaining_figures_name_their_axes():
    p = np.full(8, 1 / 8)
    assert attention_transfer.direction(p, p, p).axes[0].get_xlabel() == "bin"
    curves = {"student": (np.arange(4.0), np.array([2.0, 4.0, 6.0, 4.0]))}
    axis = attention_transfer.frame_attention(curves).axes[0]
    assert axis.get_xlabel() == "time (s)" and axis.lines[0].get_ydata().mean() == pytest.approx(1)
    left, right, bar = attention_transfer.pooling(np.ones((4, 10)), np.ones(4), 100).axes
    assert bar.get_ylabel() == "Q (dB below maximum)"
    assert left.get_ylabel() == "freq (kHz)" and left.images[0].get_extent()[1] == pytest.approx(10 * 100 / 16000)
    assert attention_transfer.short_name("decoder.3") == "D3"


TEACHER = np.array([[[1, 1], [4, 2]], [[1, -1], [0, 2]], [[1, 1], [0, 0]], [[1, -1], [0, 0]]])  # (chan, freq, frame)
STUDENT = np.array([[[2, 1, 0], [1, 1, -1]], [[0, 1, 0], [1, -1, 1]]])


@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
def test_picture_of_at_kl_writes_the_library_number(normalisation):
    figure = attention_transfer.at_kl_picture(TEACHER, STUDENT, normalisation)
    words = [t.get_text() for t in figure.axes[0].texts]
    features = (torch.tensor(f[None], dtype=torch.float32) for f in (STUDENT, TEACHER))
    expected = AttentionTransferKL(normalisation=normalisation).layer("", *features).item()
    assert f"KL\n{expected:.3f} nat" in words
    assert "high $f$" in words and "low $f$" in words
    assert "teacher: 4 channels, 2 frames" in words and "student: 2 channels, 3 frames" in words
    assert ("0.75" in words) == (normalisation == "sum")


def test_picture_of_at_kl_needs_the_same_frequencies():
    with pytest.raises(ValueError, match="same freq"):
        attention_transfer.at_kl_picture(TEACHER, STUDENT[:, :1])
    with pytest.raises(ValueError, match="sum, softmax"):
        attention_transfer.at_kl_picture(TEACHER, STUDENT, "max")


def test_stages_of_at_kl_are_those_worked_out_on_paper():
    stages = attention_transfer.at_kl_stages(TEACHER)
    assert stages["map"].tolist() == [[1, 1], [4, 2]] and stages["profile"].tolist() == [1, 3]
    assert stages["distribution"].tolist() == [0.25, 0.75]


# ---- widget


@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
def test_divergences_equal_at_kl_of_that_layer(features, normalisation):
    got = widget.divergences(features, "encoder.0", normalisation=normalisation, temperature=0.5)
    loss = AttentionTransferKL(normalisation=normalisation, temperature=0.5)
    assert set(got) == {"student", "student_at_kl"}
    for name, value in got.items():
        expected = loss.layer("", features[name]["encoder.0"], features["teacher"]["encoder.0"]).item()
        assert value == pytest.approx(expected, rel=1e-5)
    assert f"student alone: KL {got['student']:.4f} nat" in widget.report(
        features, "encoder.0", normalisation=normalisation, temperature=0.5
    )


def test_unknown_layer_is_named(features):
    with pytest.raises(ConfigError, match="unknown layer 'encoder.7'"):
        widget.report(features, "encoder.7")


def test_browser_redraws_for_every_control(features):
    box = widget.layer_browser(features, STFTS, "encoder.0")
    layer, normalisation, temperature, power, text, maps, profiles = box.children
    assert tuple(layer.options) == LAYERS and bytes(maps.value[:4]) == b"\x89PNG"
    seen = [(text.value, bytes(maps.value), bytes(profiles.value))]
    for control, value in ((layer, "decoder.5"), (normalisation, "softmax"), (temperature, 0.1), (power, 1.0)):
        control.value = value
        seen.append((text.value, bytes(maps.value), bytes(profiles.value)))
    assert len({s[0] for s in seen}) == len({s[2] for s in seen}) == 5
    assert len({s[1] for s in seen}) == 3  # maps depend on layer and power only
    expected = widget.report(features, "decoder.5", normalisation="softmax", temperature=0.1, power=1.0)
    assert expected in text.value


def test_maps_and_profiles_of_the_browser_are_labelled(features):
    first, second = widget.draw(features, STFTS, "decoder.5", normalisation="softmax", power=1.0)
    assert len(first.axes) == 4 and second.axes[0].get_title() == "decoder.5 (32 bins)"


# ---- exercises


def test_solutions_are_right():
    assert check_kl(solution_kl)
    assert check_at_kl(solution_at_kl)
    assert check_at_kl(lambda student, teacher: MyATKL()(student, teacher)[0])
    assert check_at_kl(lambda student, teacher: AttentionTransferKL()(student, teacher)[0])
    assert check_reduction(solution_reduction())
    assert check_frame_position(solution_frame_position)


@pytest.mark.parametrize("check", [check_kl, check_at_kl, check_reduction, check_frame_position])
def test_unanswered_is_not_yet(check):
    assert repr(check(None)).startswith("Not yet: ")


@pytest.mark.parametrize("check", [check_kl, check_at_kl, check_frame_position])
def test_an_empty_function_is_not_yet(check):
    def skeleton(*inputs): ...

    assert "the function returns None" in check(skeleton).message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda t, s: F.kl_div(t.log(), s, reduction="batchmean"), "KL(student || teacher): F.kl_div"),
        (lambda t, s: F.kl_div(t.log(), s, reduction="sum"), "summed over the batch"),
        (lambda t, s: F.kl_div(s.log(), t, reduction="sum"), "sum over the batch as well"),
        (lambda t, s: F.kl_div(s.log(), t, reduction="none").mean(), "mean over freq too"),
        (lambda t, s: F.kl_div(s.log2(), t, reduction="none").sum() / 4, "neither"),
        (lambda t, s: (t * (t / s).log2()).sum(-1).mean(), "bits"),
        (lambda t, s: ((t - s) * (t / s).log()).sum(-1).mean() / 2, "symmetric"),
        (lambda t, s: F.kl_div(s, t, reduction="batchmean"), "log-probabilities"),
        (lambda t, s: (t * (t / s).log()).sum(-1), "one number"),
        (lambda t, s: (t - s).abs().sum(), "neither"),
    ],
)
def test_mistakes_in_kl_are_recognised(answer, message):
    verdict = check_kl(answer)
    assert not verdict and message in verdict.message


def _at_kl(profile=None, each=None, over=None, pairs=None):
    """AT-KL as a reader writes it, with one of its lines changed: profile, divergence, mean over layers, layers."""

    def answer(student, teacher):
        terms = []
        for feature, target in (
            pairs(student, teacher) if pairs else [(student[k], teacher[k].detach()) for k in student]
        ):
            q_t, q_s = (profile(x) if profile else x.square().mean((1, 3)) for x in (target, feature))
            p_t, p_s = q_t / q_t.sum(-1, keepdim=True), q_s / q_s.sum(-1, keepdim=True)
            terms.append(each(p_t, p_s) if each else (p_t * (p_t / p_s).log()).sum(-1).mean())
        return over(terms) if over else sum(terms) / len(terms)

    return answer


def _cut_normaliser(student, teacher):
    """The right value, but the sum that divides is detached."""
    terms = []
    for name, features in student.items():
        profiles = (x.square().mean((1, 3)) for x in (teacher[name].detach(), features))
        p_t, p_s = (q / q.sum(-1, keepdim=True).detach() for q in profiles)
        terms.append((p_t * (p_t / p_s).log()).sum(-1).mean())
    return torch.stack(terms).mean()


def _no_gradient(student, teacher):
    with torch.no_grad():
        return solution_at_kl(student, teacher)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda s, t: MyATKL()(s, t), "several things"),
        (lambda s, t: solution_at_kl(s, t).item(), "carries no gradient"),
        (_at_kl(over=torch.stack), "one number, got shape (3,)"),
        (lambda s, t: (s["encoder.0"] - t["encoder.0"]).square().mean(), "share only the axis freq"),
        (_at_kl(over=sum), "sum over the layers"),
        (_at_kl(over=lambda terms: terms[-1]), "divergence of decoder.4 alone"),
        (_at_kl(lambda x: x.mean(3).square().mean(1)), "mean over frames before squaring"),
        (_at_kl(lambda x: x.mean(1).square().mean(-1)), "mean over channels before squaring"),
        (_at_kl(lambda x: x.square().mean((0, 1, 3))), "averaged over the batch first"),
        (_at_kl(lambda x: x.square().mean((1, 3)).mean(0, keepdim=True)), "averaged over the batch first"),
        (_at_kl(lambda x: x.abs().mean((1, 3))), "p = 2"),
        (_at_kl(lambda x: x.square().mean((1, 3)).softmax(-1)), "softmax of the profiles"),
        (lambda s, t: AttentionTransferKL(normalisation="softmax")(s, t)[0], "other normalisation"),
        (_at_kl(lambda x: F.normalize(x.square().mean(1), p=1, dim=1).mean(-1)), "each frame divided by its own sum"),
        (_at_kl(each=lambda t, s: (s * (s / t).log()).sum(-1).mean()), "KL(student || teacher)"),
        (_at_kl(each=lambda t, s: (t * (t / s).log()).sum()), "sum over the batch"),
        (_at_kl(each=lambda t, s: (t * (t / s).log()).mean()), "mean over freq"),
        (_at_kl(each=lambda t, s: (t * (t / s).log2()).sum(-1).mean()), "in bits"),
        (_at_kl(each=lambda t, s: (t - s).abs().sum(-1).mean()), "not AT-KL"),
        (_at_kl(pairs=lambda s, t: zip(s.values(), t.values(), strict=True)), "paired by their place"),
        (_at_kl(pairs=lambda s, t: [(s[k], t[k]) for k in s]), "the teacher is not detached"),
        (_no_gradient, "no gradient reaches the student"),
        (_cut_normaliser, "gradient is not"),
        (
            _at_kl(each=lambda t, s: (t * (t / s).log()).mean(0), over=lambda terms: torch.stack(terms).mean()),
            "one number",
        ),
        (_at_kl(pairs=lambda s, t: [(s[k].detach() if "1" in k else s[k], t[k].detach()) for k in s]), "some layers"),
    ],
)
def test_mistakes_in_at_kl_are_recognised(answer, message):
    verdict = check_at_kl(answer)
    assert not verdict and message in verdict.message, verdict


@pytest.mark.parametrize("answer", [0.15625, 0.156, 0.16, "0.156", 10 / 64, torch.tensor(10 / 64)])
def test_a_rounded_weight_is_right(answer):
    assert check_reduction(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("10/64", "give a number, as 10 / 2, without quotation marks (got str)"),
        ([0.15625, 1.0], "give a number"),
        (0.0195, "512 is the factor between sum and mean"),
        (10, "unchanged"),
        (640, "wrong way"),
        (10 / 512, "512 is the factor between sum and mean"),
        (10 / 8, "both reductions divide by the batch"),
        (80, "both reductions divide by the batch"),
        (5120, "wrong way, and 512"),
        (0.5, "does not keep"),
    ],
)
def test_mistakes_in_reduction_are_recognised(answer, message):
    verdict = check_reduction(answer)
    assert not verdict and message in verdict.message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda k, s, t, w: k * s / t, "pairs frame 0 with frame 0"),
        (lambda k, s, t, w: (k + 1) * t / s - 1, "hops are swapped"),
        (lambda k, s, t, w: ((k + 1) * s / t - 1).round(), "rounded to whole"),
        (lambda k, s, t, w: ((k + 1) * s / t - 1).floor(), "rounded down"),
        (lambda k, s, t, w: (k + 1) * s / t, "one too large"),
        (lambda k, s, t, w: (k + 1) * s - w / 2, "centre in samples"),
        (lambda k, s, t, w: (k + 1) * 100 / 160 - 1, "use the arguments"),
        (lambda k, s, t, w: k[:3], "one position for each"),
        (lambda k, s, t, w: k, "do not agree"),
    ],
)
def test_mistakes_in_frame_position_are_recognised(answer, message):
    verdict = check_frame_position(answer)
    assert not verdict and message in verdict.message
