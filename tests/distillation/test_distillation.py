"""Distillation: every loss pinned to a number, what it is blind to, where its gradient goes, and its errors."""

import copy
import errno
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from dccrn_lib.audio.stft import STFTConfig
from dccrn_lib.distillation import other_methods
from dccrn_lib.distillation.at_kl import AttentionTransferKL, CentredAttentionTransferKL
from dccrn_lib.distillation.attention import (
    align_frames,
    channel_attention,
    frequency_attention,
    kl_divergence,
    log_distribution,
)
from dccrn_lib.distillation.freezing import assert_frozen, freeze, frozen
from dccrn_lib.distillation.loss import METHODS, DistillationLoss
from dccrn_lib.distillation.names import CACHED_METHODS, METHOD_NAMES
from dccrn_lib.distillation.other_methods import AttentionTransfer, ChannelKL, FitNets, SelfSimilarity
from dccrn_lib.distillation.taps import FeatureTap
from dccrn_lib.distillation.teacher import CachedTeacher, Teacher
from dccrn_lib.losses import si_snr_loss
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.errors import ConfigError

LAYERS = [f"{part}.{i}" for part in ("encoder", "decoder") for i in range(6)]
FREQS = [128, 64, 32, 16, 8, 4, 8, 16, 32, 64, 128, 256]
STUDENT, TEACHER = STFTConfig(hop_length=100), STFTConfig(hop_length=160)
FEATURE_METHODS = [name for name, kind in METHODS.items() if kind is not None]


def feature(*rows: list[float]) -> torch.Tensor:
    """(1, 1, freq, frame) of one channel from its rows over frame."""
    return torch.tensor(rows)[None, None]


@pytest.fixture(scope="module")
def pair():
    """Mini student (training mode) and frozen mini teacher."""
    torch.manual_seed(0)
    return build_model("distil_dccrn_mini").train(), freeze(build_model("uformer_mini"))


@pytest.fixture(scope="module")
def run(pair):
    """Waveforms and features of both networks on one batch, the student's with their graph."""
    student, teacher = pair
    clean = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1))
    with FeatureTap(student) as tap_s, FeatureTap(teacher) as tap_t:
        y = student(clean)
        with torch.no_grad():
            y_teacher = teacher(clean)
    return {"clean": clean, "y": y, "y_teacher": y_teacher, "student": tap_s.features, "teacher": tap_t.features}


def method_loss(name: str, run: dict, seed: int = 0):
    torch.manual_seed(seed)
    loss = METHODS[name](student_stft=STUDENT, teacher_stft=TEACHER)
    loss.prepare(run["student"], run["teacher"])
    return loss


# ---- tap


def test_tap_records_all_layers_of_both_networks(run):
    assert list(run["student"]) == list(run["teacher"]) == LAYERS
    assert [run["student"][k].shape[2] for k in LAYERS] == FREQS
    assert [run["teacher"][k].shape[2] for k in LAYERS] == FREQS
    assert {v.shape[3] for v in run["student"].values()} == {43}  # ceil((4000 + 300) / 100)
    assert {v.shape[3] for v in run["teacher"].values()} == {27}  # ceil((4000 + 240) / 160)


@pytest.mark.parametrize(("stream", "chan"), [("complex", 4), ("magnitude", 2), ("both", 6)])
def test_tap_keeps_the_stream_asked_for(pair, stream, chan):
    outputs = []
    layer = pair[1].encoder[0]
    handle = layer.register_forward_hook(lambda _m, _i, o: outputs.append(o))
    with torch.no_grad(), FeatureTap(pair[1], stream) as tap:
        pair[1](torch.randn(1, 1000))
    handle.remove()
    complex_stream, magnitude_stream = outputs[0]
    expected = {
        "complex": complex_stream,
        "magnitude": magnitude_stream,
        "both": torch.cat([complex_stream, magnitude_stream], 1),
    }[stream]
    assert tap.features["encoder.0"].shape[1] == chan
    assert torch.equal(tap.features["encoder.0"], expected)


def test_tap_leaves_no_hook_and_does_not_change_the_output(pair):
    student = copy.deepcopy(pair[0]).eval()
    x = torch.randn(1, 1000)
    with torch.no_grad():
        before = student(x)
        with FeatureTap(student) as tap:
            during = student(x)
        kept = tap.features["encoder.0"]
        student(2 * x)
    assert torch.equal(before, during)
    assert tap.features["encoder.0"] is kept
    assert all(not layer._forward_hooks for layer in [*student.encoder, *student.decoder])


def test_tap_refuses_an_unknown_stream(pair):
    with pytest.raises(ConfigError, match="'complexx'.*complex"):
        FeatureTap(pair[0], stream="complexx")


# ---- pooling and distributions


def test_channel_attention_by_hand():
    a = torch.tensor([1.0, -3.0]).view(1, 2, 1, 1)
    assert channel_attention(a).item() == pytest.approx((1 + 9) / 2)
    assert channel_attention(a, 1.0).item() == pytest.approx((1 + 3) / 2)
    assert channel_attention(a, 4.0).item() == pytest.approx((1 + 81) / 2)


def test_channel_attention_of_p_2_is_half_the_mean_of_the_complex_square():
    z = torch.randn(2, 3, 5, 7, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    stacked = torch.cat([z.real, z.imag], 1)
    assert torch.allclose(2 * channel_attention(stacked), z.abs().square().mean(1), rtol=1e-5)


def test_frequency_attention_pools_chan_and_frame():
    a = torch.arange(24.0).view(1, 2, 3, 4)
    expected = [(a[0, :, f] ** 2).mean().item() for f in range(3)]
    assert frequency_attention(a)[0].tolist() == pytest.approx(expected)


def test_distributions_by_hand():
    q = torch.tensor([[1.0, 3.0]])
    assert log_distribution(q).exp()[0].tolist() == pytest.approx([0.25, 0.75])
    unit = [1 / math.sqrt(10), 3 / math.sqrt(10)]
    for temperature in (1.0, 0.1):
        e = [math.exp(u / temperature) for u in unit]
        got = log_distribution(q, "softmax", temperature).exp()[0].tolist()
        assert got == pytest.approx([v / sum(e) for v in e], rel=1e-5)


def test_softmax_at_one_is_nearly_flat_and_its_divergence_tiny():
    generator = torch.Generator().manual_seed(0)
    q_t, q_s = (torch.rand(4, 128, generator=generator).pow(4) for _ in range(2))
    p = log_distribution(q_t, "softmax").exp()
    assert (p.amax(-1) / p.amin(-1)).max() < math.e  # entries of a unit vector lie in [0, 1]
    soft = kl_divergence(log_distribution(q_t, "softmax"), log_distribution(q_s, "softmax"))
    plain = kl_divergence(log_distribution(q_t), log_distribution(q_s))
    assert plain / soft > 100


@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
def test_distributions_are_finite_for_silence_and_empty_bins(normalisation):
    for q in (torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 5.0, 0.0]])):
        q = q.requires_grad_()
        log_p = log_distribution(q, normalisation)
        log_p.sum().backward()
        assert torch.isfinite(log_p).all() and torch.isfinite(q.grad).all()
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_kl_by_hand_and_its_direction():
    t, s = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert kl_divergence(t, s).item() == pytest.approx(0.5 * math.log(4 / 3))
    assert kl_divergence(s, t).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_kl_reduction_does_not_depend_on_batch_or_further_axes():
    generator = torch.Generator().manual_seed(0)
    t, s = (torch.randn(3, 5, 8, generator=generator).log_softmax(-1) for _ in range(2))
    one = kl_divergence(t, s)
    rows = (t.exp() * (t - s)).sum(-1)
    assert one.item() == pytest.approx(rows.mean().item(), rel=1e-5)
    assert kl_divergence(t.repeat(4, 1, 1), s.repeat(4, 1, 1)).item() == pytest.approx(one.item(), rel=1e-5)
    torch_sum = nn.functional.kl_div(s, t, reduction="sum", log_target=True)
    assert torch_sum.item() / one.item() == pytest.approx(15, rel=1e-4)


# ---- frames


@pytest.mark.parametrize(("teacher", "student"), [(TEACHER, STUDENT), (STUDENT, TEACHER), (STUDENT, STUDENT)])
def test_alignment_is_exact_on_a_ramp(teacher, student):
    """A curve that equals time itself must come out as the centres of the wanted frames."""
    frames_t, frames_s = 30, 40

    def centres(stft, frames):
        # frame k covers the samples [k hop - (win - hop), (k + 1) hop)
        start = torch.arange(frames) * stft.hop_length - (stft.window_length - stft.hop_length)
        return (start + (torch.arange(frames) + 1) * stft.hop_length) / 2

    ramp, wanted = centres(teacher, frames_t), centres(student, frames_s)
    got = align_frames(ramp.expand(2, 3, -1), teacher, student, frames_s)
    assert got.shape == (2, 3, frames_s)
    inner = (wanted >= ramp[0]) & (wanted <= ramp[-1])
    assert inner.sum() > 15
    assert torch.allclose(got[..., inner], wanted[inner].expand(2, 3, -1), atol=1e-3)
    # outside the nearest frame is kept
    assert (got[..., wanted < ramp[0]] == ramp[0]).all() and (got[..., wanted > ramp[-1]] == ramp[-1]).all()


def test_alignment_between_equal_hops_changes_nothing_and_one_frame_is_repeated():
    x = torch.randn(2, 9)
    assert torch.allclose(align_frames(x, STUDENT, STUDENT, 9), x)
    assert align_frames(torch.tensor([3.0]), TEACHER, STUDENT, 4).tolist() == [3.0] * 4


# ---- every method is a number


def test_at_kl_by_hand():
    student, teacher = feature([1.0], [1.0]), feature([1.0], [3.0**0.5])  # q: (1, 1) and (1, 3)
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert AttentionTransferKL().layer("", student, teacher).item() == pytest.approx(expected, rel=1e-5)
    # p = 1: q = (1, 1) and (1, sqrt 3)
    p = [1 / (1 + 3**0.5), 3**0.5 / (1 + 3**0.5)]
    expected = sum(v * math.log(2 * v) for v in p)
    assert AttentionTransferKL(power=1.0).layer("", student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_at_kl_softmax_by_hand():
    student, teacher = feature([1.0], [1.0]), feature([1.0], [3.0**0.5])
    for tau in (1.0, 0.5):
        e = [math.exp(u / math.sqrt(10) / tau) for u in (1, 3)]
        expected = sum(v / sum(e) * math.log(2 * v / sum(e)) for v in e)
        loss = AttentionTransferKL(normalisation="softmax", temperature=tau)
        assert loss.layer("", student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_time_frequency_adds_the_divergence_over_frames():
    # M of the student: [[1, 4], [1, 4]]: over freq (1/2, 1/2), over frame (1/5, 4/5)
    # M of the teacher: [[1, 1], [3, 3]]: over freq (1/4, 3/4), over frame (1/2, 1/2)
    student, teacher = feature([1.0, 2.0], [1.0, 2.0]), feature([1.0, 1.0], [3.0**0.5, 3.0**0.5])
    over_freq = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    over_frame = 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)
    assert AttentionTransferKL().layer("", student, teacher).item() == pytest.approx(over_freq, rel=1e-5)
    both = AttentionTransferKL(reading="time_frequency").layer("", student, teacher).item()
    assert both == pytest.approx(over_freq + over_frame, rel=1e-5)


def test_attention_transfer_by_hand():
    # maps (1, 0) and (4, 9) / sqrt(97): squared distance 2 - 2 * 4 / sqrt(97)
    student, teacher = feature([1.0], [0.0]), feature([2.0], [3.0])
    got = AttentionTransfer().layer("", student, teacher).item()
    assert got == pytest.approx(2 - 8 / math.sqrt(97), rel=1e-5)


def identity_adapter(loss, chan: int):
    loss.adapters = nn.ModuleDict({"encoder_0": nn.Conv2d(chan, chan, 1)})
    with torch.no_grad():
        loss.adapters["encoder_0"].weight.copy_(torch.eye(chan)[..., None, None])
        loss.adapters["encoder_0"].bias.zero_()
    return loss


def test_fitnets_by_hand():
    loss = identity_adapter(FitNets(), 1)
    got = loss.layer("encoder.0", feature([1.0], [2.0]), feature([3.0], [0.0])).item()
    assert got == pytest.approx(((1 - 3) ** 2 + 2**2) / 9, rel=1e-5)


def test_channel_kl_by_hand():
    loss = identity_adapter(ChannelKL(), 1)
    student, teacher = feature([0.0], [0.0]), feature([0.0], [math.log(3)])  # P: (1/2, 1/2), (1/4, 3/4)
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert loss.layer("encoder.0", student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_self_similarity_by_hand():
    # student: rows (1, 0), (1, 1): cosine 1/sqrt 2; teacher (three frames): rows orthogonal
    student, teacher = feature([1.0, 0.0], [1.0, 1.0]), feature([1.0, 0.0, 0.0], [0.0, 5.0, 0.0])
    assert SelfSimilarity().layer("", student, teacher).item() == pytest.approx(2 * 0.5 / 4, rel=1e-5)


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_loss_is_the_mean_over_the_layers_and_independent_of_the_batch(name, run):
    loss = method_loss(name, run)
    total, layers = loss(run["student"], run["teacher"])
    assert list(layers) == LAYERS
    assert total.item() == pytest.approx(sum(v.item() for v in layers.values()) / 12, rel=1e-5)
    if name == "fitnets":  # relative to the power of the whole batch
        repeated = [{k: torch.cat([v, v]) for k, v in run[n].items()} for n in ("student", "teacher")]
        assert loss(*repeated)[0].item() == pytest.approx(total.item(), rel=1e-4)
        return
    single = [
        loss(*({k: v[i : i + 1] for k, v in run[n].items()} for n in ("student", "teacher")))[0].item()
        for i in range(2)
    ]
    assert sum(single) / 2 == pytest.approx(total.item(), rel=1e-4)


# ---- what AT-KL is blind to


@pytest.mark.parametrize("reading", ["frequency", "time_frequency"])
@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
def test_at_kl_is_zero_for_equal_features_and_positive_otherwise(reading, normalisation, run):
    loss = AttentionTransferKL(reading, normalisation)
    same = {k: v.detach() for k, v in run["student"].items()}
    assert abs(loss(same, same)[0].item()) < 1e-6
    generator = torch.Generator().manual_seed(0)
    other = {k: torch.randn(v.shape, generator=generator) for k, v in same.items()}
    assert all(v.item() > 1e-6 for v in loss(same, other)[1].values())


@pytest.mark.parametrize("reading", ["frequency", "time_frequency"])
@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
def test_at_kl_ignores_gain_per_item_and_order_of_channels(reading, normalisation):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 6, 8, 10, generator=generator) for _ in range(2))
    loss = AttentionTransferKL(reading, normalisation)
    value = loss.layer("", student, teacher).item()
    gains = torch.tensor([0.01, 300.0]).view(2, 1, 1, 1)
    order = torch.randperm(6, generator=generator)
    for changed in (gains * student, -student, student[:, order]):
        assert loss.layer("", changed, teacher).item() == pytest.approx(value, rel=1e-4)
    for changed in (gains * teacher, teacher[:, order]):
        assert loss.layer("", student, changed).item() == pytest.approx(value, rel=1e-4)


def test_centred_at_kl_does_not_see_what_is_the_same_in_every_frame():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 6, 8, 10, generator=generator) for _ in range(2))
    offset = 5 * torch.randn(1, 6, 8, 1, generator=generator)
    plain, centred = AttentionTransferKL(), CentredAttentionTransferKL()
    value = centred.layer("", student, teacher).item()
    assert centred.layer("", student, teacher + offset).item() == pytest.approx(value, rel=1e-4)
    assert plain.layer("", student, teacher + offset).item() > 1.1 * plain.layer("", student, teacher).item()
    by_hand = plain.layer("", student - student.mean(-1, True), teacher - teacher.mean(-1, True)).item()
    assert value == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("normalisation", ["sum", "softmax"])
def test_only_the_frequency_reading_ignores_the_order_of_frames(normalisation):
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 6, 8, 10, generator=generator) for _ in range(2))
    shuffled = student[..., torch.randperm(10, generator=generator)]
    values = {}
    for reading in ("frequency", "time_frequency"):
        loss = AttentionTransferKL(reading, normalisation)
        values[reading] = [loss.layer("", s, teacher).item() for s in (student, shuffled)]
    # a KL is a difference of logarithms near 2: float32 leaves it a few 1e-7, whatever its size
    assert values["frequency"][0] == pytest.approx(values["frequency"][1], rel=1e-5, abs=1e-6)
    assert values["time_frequency"][0] != pytest.approx(values["time_frequency"][1], rel=1e-3)
    reordered = student[:, :, torch.tensor([1, 0, 2, 3, 4, 5, 6, 7])]
    moved = AttentionTransferKL("frequency", normalisation).layer("", reordered, teacher).item()
    assert moved != pytest.approx(values["frequency"][0], rel=1e-4)


def test_time_frequency_of_different_hops_uses_aligned_centres(run):
    loss = AttentionTransferKL("time_frequency", student_stft=STUDENT, teacher_stft=TEACHER)
    value, layers = loss(run["student"], run["teacher"])
    name = "encoder.2"
    m_s, m_t = (run[n][name].detach().square().mean(1) for n in ("student", "teacher"))
    aligned = align_frames(m_t.mean(1), TEACHER, STUDENT, m_s.shape[-1])
    log_p = [(q / q.sum(-1, keepdim=True)).log() for q in (m_t.mean(-1), m_s.mean(-1), aligned, m_s.mean(1))]
    expected = kl_divergence(log_p[0], log_p[1]) + kl_divergence(log_p[2], log_p[3])
    assert layers[name].item() == pytest.approx(expected.item(), rel=1e-4)
    assert value.item() > AttentionTransferKL()(run["student"], run["teacher"])[0].item()


# ---- gradients


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_gradient_reaches_every_tapped_layer_of_the_student(name, run, pair):
    loss, _ = method_loss(name, run)(run["student"], run["teacher"])
    grads = torch.autograd.grad(loss, list(run["student"].values()), retain_graph=True)
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in grads)
    for part in ("encoder", "decoder"):
        for i, layer in enumerate(getattr(pair[0], part)):
            weights = [p for n, p in layer.named_parameters() if "weight" in n]
            found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
            assert any(g is not None and g.abs().max() > 0 for g in found), f"{part}.{i}"


@pytest.mark.parametrize("name", FEATURE_METHODS)
def test_teacher_is_detached(name, run):
    teacher = {k: v.clone().requires_grad_() for k, v in run["teacher"].items()}
    student = {k: v.detach().clone().requires_grad_() for k, v in run["student"].items()}
    loss, _ = method_loss(name, run)(student, teacher)
    loss.backward()
    assert all(v.grad is None for v in teacher.values())
    assert all(v.grad is not None for v in student.values())


def test_teachers_waveform_is_detached():
    generator = torch.Generator().manual_seed(0)
    student, clean, teacher = (torch.randn(1, 500, generator=generator).requires_grad_() for _ in range(3))
    DistillationLoss("output")(student, clean, teacher)["total"].backward()
    assert teacher.grad is None and student.grad.abs().max() > 0


def test_gradients_are_finite_for_silent_features():
    for name in ("at", "at_kl", "self_similarity"):
        student = torch.zeros(1, 4, 8, 5).requires_grad_()
        METHODS[name]().layer("", student, torch.zeros(1, 4, 8, 5)).backward()
        assert torch.isfinite(student.grad).all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["at", "at_kl", "at_kl_centred", "self_similarity"])
def test_gradients_are_finite_where_only_the_student_is_silent(name, dtype):
    teacher = torch.randn(1, 4, 8, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    student = torch.zeros(1, 4, 8, 5, dtype=dtype).requires_grad_()
    METHODS[name]().layer("", student, teacher).backward()
    assert student.grad.dtype == dtype and torch.isfinite(student.grad).all()


def test_descending_at_kl_alone_moves_the_students_profile():
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(1, 4, 8, 6, generator=generator) * torch.linspace(0.1, 2, 8)[:, None]
    student = torch.randn(1, 3, 8, 9, generator=generator).requires_grad_()
    loss, optimiser = AttentionTransferKL(), torch.optim.Adam([student], lr=0.05)
    first = loss.layer("", student, teacher).item()
    for _ in range(60):
        optimiser.zero_grad()
        loss.layer("", student, teacher).backward()
        optimiser.step()
    assert loss.layer("", student, teacher).item() < 0.05 * first


# ---- the whole loss


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_total_is_the_weighted_sum_of_its_terms(a, run):
    criterion = DistillationLoss("at_kl", output_weight=a, feature_weight=2.5)
    terms = criterion(run["y"], run["clean"], run["y_teacher"], run["student"], run["teacher"])
    clean, teacher = si_snr_loss(run["y"], run["clean"]), si_snr_loss(run["y"], run["y_teacher"])
    features, layers = AttentionTransferKL()(run["student"], run["teacher"])
    assert terms["clean"].item() == pytest.approx(clean.item())
    assert terms["teacher"].item() == pytest.approx(teacher.item())
    assert terms["features"].item() == pytest.approx(features.item(), rel=1e-5)
    assert set(terms["layers"]) == set(layers) == set(LAYERS)
    expected = (1 - a) * clean + a * teacher + 2.5 * features
    assert terms["total"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_none_needs_no_teacher_and_output_has_no_feature_term(run):
    none = DistillationLoss("none")
    assert not none.needs_teacher and none.output_weight == 0
    terms = none(run["y"], run["clean"])
    assert set(terms) == {"total", "clean"} and terms["total"].item() == terms["clean"].item()
    output = DistillationLoss("output")(run["y"], run["clean"], run["y_teacher"])
    assert set(output) == {"total", "clean", "teacher"}
    assert output["total"].item() == pytest.approx((output["clean"] + output["teacher"]).item() / 2, rel=1e-5)


def test_base_loss_can_be_another_one(run):
    criterion = DistillationLoss("output", base_loss=nn.functional.mse_loss)
    terms = criterion(run["y"], run["clean"], run["y_teacher"])
    assert terms["clean"].item() == pytest.approx(nn.functional.mse_loss(run["y"], run["clean"]).item())


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("name", ["at_kl", "at", "self_similarity"])
def test_balance_gives_the_share_asked_for(name, share, run, pair):
    options = {"student_stft": STUDENT, "teacher_stft": TEACHER}
    criterion = DistillationLoss(name, **options)
    terms = criterion(run["y"], run["clean"], run["y_teacher"], run["student"], run["teacher"])
    waveform = 0.5 * terms["clean"] + 0.5 * terms["teacher"]
    assert terms["total"].item() == pytest.approx(waveform.item(), rel=1e-6)  # b is not known yet
    parameters = list(pair[0].parameters())
    record = criterion.balance(parameters, waveform, terms["features"], share)

    def norm(loss):
        grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        return math.sqrt(sum(g.square().sum().item() for g in grads if g is not None))

    assert norm(criterion.feature_weight * terms["features"]) / norm(waveform) == pytest.approx(share, rel=1e-3)
    assert record["feature_weight"] == criterion.feature_weight
    again = criterion(run["y"], run["clean"], run["y_teacher"], run["student"], run["teacher"])
    expected = waveform + criterion.feature_weight * terms["features"]
    assert again["total"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_balance_keeps_a_weight_that_was_given(run, pair):
    criterion = DistillationLoss("at_kl", feature_weight=7.0)
    terms = criterion(run["y"], run["clean"], run["y_teacher"], run["student"], run["teacher"])
    record = criterion.balance(list(pair[0].parameters()), terms["clean"], terms["features"])
    assert record["feature_weight"] == criterion.feature_weight == 7.0


def test_balance_refuses_a_term_without_gradient():
    x = torch.ones(3, requires_grad=True)
    for waveform, features, term in (
        (x.sum(), 0 * x.sum(), "feature term has the norm 0"),
        (x.sum(), x.sum() * math.inf, "feature term has the norm inf"),
        (x.sum() * math.nan, x.sum(), "waveform terms has the norm nan"),
    ):
        with pytest.raises(ConfigError, match=f"at_kl: the gradient of the {term}.*feature_weight"):
            DistillationLoss("at_kl").balance([x], waveform, features)
    y = torch.ones(2, requires_grad=True)
    with pytest.raises(ConfigError, match="feature term has the norm 0"):  # of which x is no part
        DistillationLoss("at_kl").balance([x], x.sum(), y.sum())
    for share in (-1.0, math.nan):
        with pytest.raises(ConfigError, match="share must be at least 0"):
            DistillationLoss("at_kl").balance([x], x.sum(), x.sum(), share)
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="feature_weight must be at least 0"):
            DistillationLoss("at_kl", feature_weight=weight)


# ---- teacher stays as it is


def test_frozen_teacher_is_asserted(pair):
    teacher = copy.deepcopy(pair[1])
    with frozen(teacher) as t:
        assert not t.training and not any(p.requires_grad for p in t.parameters())
    teacher.train()
    with pytest.raises(AssertionError, match="training mode"):
        assert_frozen(teacher)
    teacher.eval().requires_grad_(True)
    with pytest.raises(AssertionError, match="take gradients"):
        assert_frozen(teacher)
    with pytest.raises(AssertionError, match="training mode"):
        with frozen(teacher):
            teacher.train()
    with pytest.raises(KeyError, match="first"):  # the error in flight is the one to be seen
        with frozen(teacher):
            teacher.train()
            raise KeyError("first")


# ---- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reading": "frequncy"}, "unknown reading 'frequncy'.*frequency"),
        ({"normalisation": "sofmax"}, "unknown normalisation 'sofmax'.*softmax"),
        ({"power": 0.0}, "power and temperature must be above 0, got 0.0"),
        ({"temperature": -1.0}, "power and temperature must be above 0"),
        ({"tau": 1.0}, "method at_kl: unknown option 'tau'; known: reading, normalisation, power"),
        ({"temprature": 1.0}, "method at_kl: unknown option 'temprature'; did you mean temperature"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        DistillationLoss("at_kl", **options)


@pytest.mark.parametrize("method", ["none", "output"])
def test_methods_without_a_feature_term_take_no_option(method):
    with pytest.raises(ConfigError, match=f"method {method}: unknown option 'reading'; it has no feature term"):
        DistillationLoss(method, reading="frequency")


def test_wrong_method_and_weight_are_named():
    with pytest.raises(ConfigError, match="unknown distillation method 'atkl'.*at_kl"):
        DistillationLoss("atkl")
    with pytest.raises(ConfigError, match=r"output_weight must lie in \[0, 1\], got 1.5"):
        DistillationLoss("output", output_weight=1.5)
    with pytest.raises(ConfigError, match="unknown normalisation 'max'"):
        log_distribution(torch.ones(1, 2), "max")


def test_missing_inputs_are_named(run):
    with pytest.raises(ConfigError, match="method output needs the teacher's output"):
        DistillationLoss("output")(run["y"], run["clean"])
    with pytest.raises(ConfigError, match="layers of student and teacher differ.*encoder.5"):
        AttentionTransferKL()({k: v for k, v in run["student"].items() if k != "encoder.5"}, run["teacher"])
    with pytest.raises(ConfigError, match="call prepare"):
        FitNets(STUDENT, TEACHER)(run["student"], run["teacher"])
    with pytest.raises(ConfigError, match="aligns frames: give student_stft and teacher_stft"):
        AttentionTransfer()(run["student"], run["teacher"])


@pytest.mark.parametrize("shape", [(2, 4, 8, 5), (1, 4, 9, 5)])
def test_batch_and_frequency_must_agree(shape):
    with pytest.raises(ConfigError, match="encoder.0: batch and freq"):
        AttentionTransferKL()({"encoder.0": torch.ones(1, 4, 8, 5)}, {"encoder.0": torch.ones(shape)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_of_the_attention_is_that_of_its_formula(dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 7, dtype=dtype, requires_grad=True)
    weight = torch.randn(2, 5, 7)
    found = channel_attention(x)
    formula = x.float().square().mean(dim=1)
    assert torch.equal(found, formula)
    ours, theirs = (torch.autograd.grad((q * weight).sum(), x)[0] for q in (found, formula))
    assert ours.dtype == dtype
    assert (ours - theirs).norm() <= (0.0 if dtype == torch.float32 else 6e-3) * theirs.norm()


@pytest.mark.parametrize("method", [m for m, kind in METHODS.items() if kind])
def test_every_method_takes_features_in_bfloat16(method):
    torch.manual_seed(0)
    features = [{"encoder.0": torch.randn(2, 4, 8, 9, dtype=torch.bfloat16)} for _ in range(2)]
    features[0]["encoder.0"].requires_grad_()
    loss = METHODS[method]()
    loss.prepare(*features)
    total, _ = loss(*features)
    total.backward()
    assert total.dtype == torch.float32 and features[0]["encoder.0"].grad.isfinite().all()


def test_the_names_are_those_of_the_losses():
    assert tuple(METHODS) == METHOD_NAMES and set(CACHED_METHODS) <= set(METHOD_NAMES)


def test_the_method_that_the_documents_write_is_a_method(root: Path, monkeypatch: pytest.MonkeyPatch):
    page = (root / "docs/training.md").read_text(encoding="utf-8").split("## A method of your own")[1]
    assert all(name in page for name in ("other_methods.py`", "`loss.py`", "`METHODS`", "`names.py`", "`METHOD_NAMES`"))
    written = dict(vars(other_methods))
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1], written)
    monkeypatch.setitem(METHODS, "mean_feature", written["MeanFeature"])
    loss = METHODS["mean_feature"]()
    student, teacher = ({"encoder.0": torch.rand(2, chan, 4, frames) + 0.1} for chan, frames in ((3, 8), (5, 5)))
    total, _ = loss(student, teacher)
    expected = [f["encoder.0"].square().mean(1).mean(-1) for f in (student, teacher)]
    assert total.item() == pytest.approx((expected[0] - expected[1]).square().mean().item(), rel=1e-4)


def test_what_cannot_be_tapped_or_compared_is_refused():
    with pytest.raises(ConfigError, match="Linear has no encoder"):
        FeatureTap(nn.Linear(2, 2))
    x = torch.randn(1, 400)
    with pytest.raises(ConfigError, match="at_kl needs the features of both"):
        DistillationLoss("at_kl")(x, x, x)


def test_layers_that_differ_and_empty_batches_are_named():
    full = torch.randn(1, 4, 8, 5)
    with pytest.raises(ConfigError, match="holds no sample"):
        DistillationLoss("none")(full[:0, 0, 0], full[:0, 0, 0])
    with pytest.raises(ConfigError, match="layers of student and teacher differ"):
        FitNets().prepare({"encoder.0": full}, {})
    for empty in (full[..., :0], full[:0]):
        with pytest.raises(ConfigError, match="is empty"):
            AttentionTransferKL()({"encoder.0": empty}, {"encoder.0": empty})


def test_a_kept_answer_is_as_large_as_the_documents_say(tmp_path):
    CachedTeacher(build_model("uformer_mini"), True, tmp_path, {})(torch.randn(1, 64000), ["a"])
    (file,) = tmp_path.rglob("*.safetensors")  # the miniature has the maps of the full network
    assert file.stat().st_size == pytest.approx(1.47e6, rel=0.02)


@pytest.mark.parametrize("tapped", [True, False])
def test_an_answer_is_not_given_for_another_mixture_of_its_name(tmp_path, tapped):
    """Recordings that were replaced by others of the same names and lengths leave their manifests as they were."""
    network = build_model("distil_dccrn_mini").eval()
    before, now = torch.randn(2, 1, 4000, generator=torch.Generator().manual_seed(0))
    cached = CachedTeacher(network, tapped, tmp_path, {})
    cached(before, ["a"])
    torch.testing.assert_close(cached(now, ["a"])[0], Teacher(network, False)(now, ["a"])[0])
    first, features = cached(now, ["a"])
    assert (features or {}).keys() == (
        {f"{p}.{i}" for p in ("encoder", "decoder") for i in range(6)} if tapped else set()
    )
    rendered_elsewhere, _ = cached(now * (1 + 1e-6), ["a"])
    assert torch.equal(rendered_elsewhere, first), "what differs by rounding is the same mixture"


def test_teachers_of_equal_weights_and_other_switches_have_a_cache_each(tmp_path):
    polar, product = (build_model("distil_dccrn_mini", mask=mask) for mask in "EC")
    product.load_state_dict(polar.state_dict())
    first, second = (CachedTeacher(network, True, tmp_path, {}).folder for network in (polar, product))
    assert first != second


def test_a_disk_without_room_for_an_answer_is_named(tmp_path):
    resource = pytest.importorskip("resource")
    cached, before = (
        CachedTeacher(build_model("distil_dccrn_mini"), False, tmp_path, {}),
        resource.getrlimit(resource.RLIMIT_FSIZE),
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            cached(torch.randn(1, 4000), ["a"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG and str(caught.value.filename).endswith("a.safetensors")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
