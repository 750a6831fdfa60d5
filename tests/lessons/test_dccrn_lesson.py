"""Figures, mask explorer and exercises of the DCCRN lesson."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("matplotlib", reason="the extra notebooks is not installed")

from dccrn_lib.lessons.built.dccrn import MyConv, MyStudent, my_concat
from dccrn_lib.lessons.dccrn import exercises
from dccrn_lib.lessons.dccrn import figures as draw
from dccrn_lib.lessons.dccrn import widgets as explorer
from dccrn_lib.lessons.plotting import drawing
from dccrn_lib.networks import build_model, count_macs, count_parameters
from dccrn_lib.runtime.errors import ConfigError


def labels(figure) -> list[tuple[str, str]]:
    return [(axis.get_xlabel(), axis.get_ylabel()) for axis in figure.axes]


PLANE = ("real part", "imaginary part")
RNG = np.random.default_rng(0)
CLOUD = RNG.normal(size=400) + 1j * RNG.normal(size=400)
SPECTRUM = np.exp(1j * RNG.uniform(size=(257, 20)))
BLOCKS = {"encoder": (10, 20.0), "bottleneck": (30, 4.0), "decoder": (20, 40.0)}


@pytest.mark.parametrize(
    ("figure", "wanted"),
    [
        (lambda: draw.rotation([0, 1, 1 + 1j], 1j, np.eye(2)), [PLANE, PLANE]),
        (lambda: draw.block_weight(np.ones((6, 4))), [("input channel", "output channel"), ("", "weight")]),
        (lambda: draw.stamps([1, 2], [1, 2, 1, 0, 1], 2, 2, 1), [("output bin", "value")]),
        (lambda: draw.whitening({"a": CLOUD, "b": CLOUD * 2}), [PLANE, ("real part", "")]),
        (lambda: draw.equivariance([0, 90], {"x": [0, 1], "y": [0, 0]}), [("angle (degrees)", "relative error")]),
        (lambda: draw.training({"a": [3, 2, 1], "b": [3, 2]}), [("step", "loss (dB)")]),
        (lambda: draw.mask_reach({"E": CLOUD, "C": CLOUD}, 1 + 1j, 1j), [PLANE, ("real part", "")]),
        (
            lambda: draw.constant_masks([-180, 0, 180], [0, 1, 0], [2, 1, 2]),
            [("phase of the mask (degrees)", "loss (dB)")],
        ),
        (lambda: draw.gains({"a": [(0, -0.5), (0.1, 0.5)]}), None),
        (lambda: draw.dependency({"in": np.arange(5) == 2, "out": np.arange(5) > 0}, 2), None),
        (lambda: draw.cost({"m": BLOCKS}), [("parameters (million)", ""), ("GMAC per second of audio", "")]),
        (lambda: draw.explored(SPECTRUM, SPECTRUM, SPECTRUM), None),
        (
            lambda: draw.heard({"a": SPECTRUM, "b": SPECTRUM}),
            [("time (s)", "frequency (kHz)"), ("time (s)", ""), ("", "level (dB)")],
        ),
        (lambda: draw.part_sizes({"C": np.abs(CLOUD)}), [("largest part of the mask needed", "bins above it (%)")]),
    ],
)
def test_figures_name_their_axes(figure, wanted):
    drawn = figure()
    assert drawn.axes and any(x for x, _ in labels(drawn))
    if wanted is not None:
        assert labels(drawn) == wanted
    drawn.canvas.draw()  # nothing is off the page or missing a font


def test_stamps_draw_what_the_transposed_convolution_computes():
    x, kernel = [1.0, 2.0, -1.0], [0.5, 1.0, 2.0, 1.0, 0.5]
    figure = draw.stamps(x, kernel, 2, 2, 1)
    total: dict[int, float] = {}
    for bar in figure.axes[0].patches[: 3 * 10]:
        place = round(bar.get_x() + bar.get_width() / 2)
        total[place] = total.get(place, 0) + bar.get_height()
    wanted = torch.nn.functional.conv_transpose1d(
        torch.tensor(x)[None, None], torch.tensor(kernel)[None, None], stride=2, padding=2, output_padding=1
    )
    assert [total[i] for i in range(6)] == pytest.approx(wanted.flatten().tolist())


def test_equivariance_draws_every_layer_or_says_so():
    axis = draw.equivariance([0, 90], {f"layer {i}": [0, i] for i in range(6)}).axes[0]
    assert [text.get_text() for text in axis.get_legend().texts] == [f"layer {i}" for i in range(6)]
    with pytest.raises(ConfigError, match="at most 6 layers, got 7"):
        draw.equivariance([0, 90], {f"layer {i}": [0, i] for i in range(7)})


def test_student_shows_the_size_of_every_layer():
    channels = (4, 8, 16)
    words = [text.get_text() for text in draw.student(channels, 12, bins=64).axes[0].texts]
    network = MyStudent((4, 8, 16, 16, 16, 16), 12)
    sizes = {}
    for part in ("encoder", "decoder"):
        for i, layer in enumerate(getattr(network, part)):
            layer.register_forward_hook(lambda _m, _x, y, n=f"{part}.{i}": sizes.update({n: tuple(y.shape[1:3])}))
    network(torch.zeros(1, 400))
    for i, chan in enumerate(channels):
        assert f"encoder.{i}:  {chan} × {32 // 2**i}" in words
        assert f"skip {chan} × {32 // 2**i}" in words
        assert f"decoder.{2 - i}:  {(2, *channels)[i]} × {64 // 2**i}" in words
    full = [text.get_text() for text in draw.student((4, 8, 16, 16, 16, 16), 12).axes[0].texts]
    for name, (chan, freq) in sizes.items():
        assert f"{name}:  {chan} × {freq}" in full


def test_the_student_is_drawn_as_vectors():
    assert drawing(draw.student((16, 32, 64, 128, 128, 128), 192)).startswith("<svg")


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """A tone at 1500 Hz (in the fourth band) and the same in noise: (noisy, clean), (sample,) each."""
    generator = torch.Generator().manual_seed(0)
    clean = 0.3 * torch.sin(2 * torch.pi * 1500 / 16000 * torch.arange(8000.0))
    return clean + 0.1 * torch.randn(8000, generator=generator), clean


OPEN = (0.0,) * 6


def test_an_open_mask_changes_nothing(pair):
    result = explorer.explore(*pair, OPEN, mode="C", gate_db=-120)
    assert result.enhanced_db == pytest.approx(result.noisy_db, abs=0.2)
    assert result.gain == pytest.approx(1, abs=0.02)
    assert result.samples.shape == pair[0].shape


def test_closing_the_empty_bands_helps_and_closing_the_full_one_does_not(pair):
    helped = explorer.explore(*pair, (-40, -40, -40, 0, -40, -40), gate_db=-120)
    harmed = explorer.explore(*pair, (0, 0, 0, -40, 0, 0), gate_db=-120)
    assert helped.enhanced_db > helped.noisy_db + 4
    assert harmed.enhanced_db < harmed.noisy_db - 20


def test_half_a_turn_inverts_and_costs_no_si_snr(pair):
    straight, turned = (explorer.explore(*pair, OPEN, phase=p, gate_db=-120) for p in (0, 180))
    assert turned.gain == pytest.approx(-straight.gain, abs=1e-3)
    assert turned.enhanced_db == pytest.approx(straight.enhanced_db, abs=1e-2)


def test_a_quarter_turn_loses_the_tone(pair):
    assert explorer.explore(*pair, OPEN, phase=90, gate_db=-120).enhanced_db < -15


def test_mode_r_at_phase_0_deletes_the_imaginary_part(pair):
    result = explorer.explore(*pair, OPEN, mode="R", gate_db=-120)
    assert result.enhanced.imag.abs().max() < 1e-5
    assert result.enhanced.real.abs().max() > 1


def test_mode_e_cannot_amplify_and_mode_c_can(pair):
    loud = (12.0,) * 6
    gains = {mode: explorer.explore(*pair, loud, mode=mode, gate_db=-120).enhanced.abs() for mode in "EC"}
    noisy = explorer.explore(*pair).noisy.abs()
    assert (gains["E"] <= noisy + 1e-4).all()
    assert torch.allclose(gains["C"][1:], noisy[1:] * 10 ** (12 / 20), rtol=1e-3, atol=1e-4)


def test_the_gate_lowers_quiet_bins_by_20_db(pair):
    spectrum = explorer.explore(*pair).noisy
    is_open = explorer.mask_from_bands(spectrum, OPEN, 0, "C", -120)
    gated = explorer.mask_from_bands(spectrum, OPEN, 0, "C", -30)
    ratio = (gated.abs() / is_open.abs().clamp_min(1e-9))[1:]
    quiet = (spectrum.abs() < spectrum.abs().max() * 10 ** (-30 / 20))[1:]
    assert quiet.any() and not quiet.all()
    assert torch.allclose(ratio[quiet], torch.tensor(0.1)) and torch.allclose(ratio[~quiet], torch.tensor(1.0))


def test_the_mask_is_zero_at_dc_and_wants_six_gains(pair):
    spectrum = explorer.explore(*pair).noisy
    assert explorer.mask_from_bands(spectrum, OPEN, 0, "C", -120)[0].abs().max() == 0
    with pytest.raises(ConfigError, match="expected 6 band gains, got 2"):
        explorer.mask_from_bands(spectrum, (0, 0), 0, "C", -120)


def test_moving_a_control_changes_what_the_widget_shows(pair):
    pytest.importorskip("ipywidgets", reason="the extra notebooks is not installed")
    box = explorer.mask_explorer(*pair)
    (bands, others), view = (column.children for column in box.children[0].children), box.children[1]
    mode, phase, _gate = others
    shown = [view.value]
    assert "<img" in shown[0] and "<audio" in shown[0] and "SI-SNR" in shown[0]
    for control, value in ((bands[3], -30.0), (phase, 180.0), (mode, "R")):
        control.value = value
        shown.append(view.value)
    assert len(set(shown)) == 4


def thirds(x, skip, conv, *norm):
    """A decoder layer with its number of channels in the code."""
    joined = torch.cat([x[:, :3], skip[:, :3], x[:, 3:], skip[:, 3:]], 1)
    return exercises.decoded(x, skip, lambda _: conv(joined), *norm)


def halves(order):
    """Joined in the order of letters: a b = x real, imaginary; c d = skip real, imaginary."""

    def join(x, skip):
        parts = dict(zip("abcd", (*x.chunk(2, 1), *skip.chunk(2, 1)), strict=True))
        return torch.cat([parts[k] for k in order], 1)

    return join


@pytest.mark.parametrize("kind", [int, np.int64, torch.tensor])
def test_a_number_of_any_kind_is_a_number(kind):
    assert exercises.check_lookahead_samples(kind(exercises.solution_lookahead_samples()))


@pytest.mark.parametrize("name", ["complex_conv", "decoder_layer", "skip_order", "lookahead_samples"])
def test_solutions_are_right_and_no_answer_is_not(name):
    check, solution = getattr(exercises, f"check_{name}"), getattr(exercises, f"solution_{name}")
    assert check(solution()), check(solution())
    verdict = check(None)
    assert not verdict and "no answer yet" in repr(verdict) and repr(verdict).startswith("Not yet:")


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        ("decoder_layer", lambda x, s, conv, *rest: None, "returns nothing yet"),
        ("decoder_layer", lambda x, s, conv, *rest: 3, "must return a tensor"),
        ("decoder_layer", torch.zeros(2), "the function itself"),
        ("decoder_layer", lambda x, s, conv, *rest: conv(x), "conv takes 12 channels, x and its skip joined"),
        ("decoder_layer", lambda x, s, conv, *rest: conv(torch.cat([x, s], 1)), "one frame too many"),
        ("decoder_layer", lambda x, s, conv, *rest: conv(torch.cat([x, s], 1))[:, :1], "as many frames as came in"),
        ("decoder_layer", lambda x, s, *rest: 0 * exercises.decoded(x, s, *rest), "the values are not"),
        ("decoder_layer", thirds, "wrong for features of 2"),
        ("skip_order", lambda x, s: ..., "returns nothing yet"),
        ("skip_order", lambda x, s: x + s, "join along chan"),
        ("skip_order", lambda x, s: torch.cat([x, s], 1), "plain concatenation: "),
        ("skip_order", lambda x, s: torch.cat([s, x], 1), "the skip first"),
        ("skip_order", halves("acbd"), "DCCRN's order"),
        ("skip_order", halves("dbca"), "changed places"),
        (
            "skip_order",
            lambda x, s: torch.cat([s[:, :2], x[:, :2], s[:, 2:], x[:, 2:]], 1),
            "right for 4 channels, wrong",
        ),
        ("skip_order", lambda x, s: torch.cat([s, x.copy_(s)], 1), "the order"),
        ("skip_order", halves("dcba"), "the order of the channels is"),
        ("lookahead_samples", 500, "overlap of the STFT"),
        ("lookahead_samples", 900, "off by one"),
        ("lookahead_samples", 800, "at the end of its hop"),
        ("lookahead_samples", 999, "6 decoder layers"),
        ("lookahead_samples", 1399, "encoder layers look back"),
        ("lookahead_samples", 399, "STFT alone"),
        ("lookahead_samples", 56.2, "milliseconds"),
        ("lookahead_samples", 31.25, "milliseconds"),
        ("lookahead_samples", 123, "win - 1"),
    ],
)
def test_wrong_answers_are_told_what_is_wrong(check, answer, words):
    verdict = getattr(exercises, f"check_{check}")(answer)
    assert not verdict and words in verdict.message


@pytest.mark.parametrize("message", exercises.DECODER_SLIPS)
def test_slips_of_a_decoder_layer_are_named(message):
    slip = exercises.DECODER_SLIPS[message]
    verdict = exercises.check_decoder_layer(lambda *inputs: exercises.decoded(*inputs, slip=slip))
    assert not verdict and verdict.message == message


def test_a_decoder_layer_that_a_reader_wrote_with_the_classes_of_the_lesson_is_right():
    def decode(x, skip, conv, mean, var, gamma, beta, slope):
        y = conv(my_concat(x, skip))[..., 1:]
        return F.prelu(F.batch_norm(y, mean, var, gamma, beta, eps=1e-5).double(), slope.double())

    assert exercises.check_decoder_layer(decode), exercises.check_decoder_layer(decode)


def test_lines_of_part_sizes_differ_in_more_than_colour():
    first, second = draw.part_sizes({"C": np.abs(CLOUD), "R": np.abs(CLOUD)}).axes[0].lines
    assert first.get_linestyle() != second.get_linestyle()


def test_fewer_units_save_parameters_and_fewer_channels_save_both():
    """The numbers of the quiz and of section 9."""
    half, three_quarters = (16, 32, 64, 128, 128, 128), (12, 24, 48, 96, 96, 96)
    sizes = {"student": (half, 192), "100 units": (half, 100), "2 units": (half, 2), "channels": (three_quarters, 192)}
    cost = {}
    for name, (channels, units) in sizes.items():
        model = build_model("distil_dccrn", channels=channels, rnn_units=units)
        cost[name] = count_parameters(model), count_macs(model)
    (parameters, macs), few = cost["student"], cost["100 units"]
    assert few[0] == 845_997 and few[0] / parameters == pytest.approx(0.75, abs=0.005)
    assert macs / 1e9 == pytest.approx(2.21, abs=0.005) and few[1] / 1e9 == pytest.approx(2.12, abs=0.005)
    assert [round(100 - 100 * a / b) for a, b in zip(cost["channels"], cost["student"], strict=True)] == [31, 42]
    both = sum(count_parameters(part) for part in (MyStudent().encoder, MyStudent().decoder))
    assert both / parameters == pytest.approx(0.58, abs=0.005) and cost["2 units"][0] > both


# ---- the complex convolution that is written from nothing


class Written(nn.Module):
    """As a reader writes it: four real convolutions. Each slip of ``SLIPS`` changes one line."""

    slip = ""

    def __init__(self, chan_in: int, chan_out: int) -> None:
        super().__init__()
        if self.slip == "blank":
            return
        shape = (chan_out // 2, chan_in // 2, 5, 2) if self.slip != "whole channels" else (chan_out, chan_in, 5, 2)
        self.weight_real, self.weight_imag = (nn.Parameter(0.05 * torch.randn(shape)) for _ in range(2))
        self.bias_real, self.bias_imag = (nn.Parameter(torch.zeros(chan_out // 2)) for _ in range(2))
        if self.slip == "no parameter":
            del self.weight_imag
            self.weight_imag = torch.randn(shape)
        if self.slip == "made once":
            self.once = tuple(p.detach().clone() for p in self.parameters())

    def forward(self, x):
        slip = self.slip
        if slip == "returns nothing":
            return None
        if slip == "returns a list":
            return [x]
        wr, wi, br, bi = self.once if slip == "made once" else self.parameters()
        if slip == "data":
            wr = wr.data
        if slip == "in place":
            x[:, x.shape[1] // 2 :] *= -1
        pads = {"right": (0, 1, 2, 2), "both frames": (1, 1, 2, 2), "no frame": (0, 0, 2, 2), "no bins": (1, 0, 0, 0)}
        pads |= {"low end": (1, 0, 4, 0), "high end": (1, 0, 0, 4)}
        x = F.pad(x, pads.get(slip, (1, 0, 2, 2)))
        xr, xi = (x[:, :2], x[:, 2:4]) if slip == "literal" else x.chunk(2, dim=1)
        if slip == "every second":
            xr, xi = x[:, 0::2], x[:, 1::2]
        if slip == "input halves":
            xr, xi = xi, xr
        if slip == "letters":
            wr, wi = wi, wr
        rr, ri, ir, ii = (
            F.conv2d(part, w, stride=(1, 1) if slip == "stride" else (2, 1)) for w in (wr, wi) for part in (xr, xi)
        )
        signs = {"no minus": (1, 1, 1), "conjugate": (1, -1, 1), "both minus": (-1, -1, 1), "lower right": (-1, 1, -1)}
        a, b, c = signs.get(slip, (-1, 1, 1))
        real, imag = rr + a * ii, b * ir + c * ri
        first, second = {
            "no bias": (0 * br, 0 * bi),
            "plain bias": (br, bi),
            "bias signs": (br + bi, br - bi),
            "bias sum": (br + bi, br + bi),
            "bias difference": (br - bi, br - bi),
            "odd": (2 * br, bi),
        }.get(slip, (br - bi, br + bi))
        real, imag = real + first[:, None, None], imag + second[:, None, None]
        if slip == "one half":
            return real
        return torch.cat([imag, real] if slip == "output halves" else [real, imag], dim=1)


SLIPS = {
    "blank": "no weights yet",
    "returns nothing": "returns nothing yet",
    "returns a list": "must return a tensor",
    "whole channels": "both halves counted, it is (3, 2, 5, 2)",
    "no parameter": "no parameter weight_imag",
    "one half": "both halves of the channels",
    "both frames": "not on both sides",
    "no frame": "is missing; F.pad",
    "stride": "the stride is (2, 1)",
    "no bins": "two bins of zeros at both ends are missing",
    "made once": "new weights change nothing",
    "no minus": "the minus sign is missing",
    "conjugate": "the conjugate of W",
    "both minus": "has a wrong sign: it",
    "lower right": "wrong sign at Wr xi",
    "letters": "Wr and Wi have changed places",
    "output halves": "half of the output have changed places",
    "input halves": "half of the input have changed places",
    "every second": "not every second one",
    "no bias": "the biases are missing",
    "plain bias": "yours are br and bi",
    "bias signs": "yours have changed signs",
    "bias sum": "br + bi in both",
    "bias difference": "br - bi in both",
    "right": "looks ahead",
    "low end": "before the first bin",
    "high end": "after the last bin",
    "odd": "the values are not",
    "data": "no gradient reaches weight_real",
    "in place": "the values are not",
    "literal": "wrong for 6 in and 4 out",
}


def test_a_complex_convolution_written_with_four_real_ones_is_right():
    assert exercises.check_complex_conv(Written), exercises.check_complex_conv(Written)


def test_buffers_are_no_parameters_and_doubles_are_no_slip():
    class Kept(Written):
        def __init__(self, i, o):
            super().__init__(i, o)
            for name, value in dict(self.named_parameters()).items():
                delattr(self, name)
                self.register_buffer(name, value.data)

    class Doubles(Written):
        def forward(self, x):
            return super().forward(x).double()

    assert "no weights yet" in exercises.check_complex_conv(Kept).message
    assert exercises.check_complex_conv(Doubles)


def test_a_weight_detached_in_one_of_its_two_uses_is_refused():
    class Half(MyConv):
        def block_weight(self):
            real, imag = self.weight_real, self.weight_imag
            return torch.cat([torch.cat([real, -imag.detach()], 1), torch.cat([imag, real], 1)], 0)

    assert exercises.check_complex_conv(MyConv)
    assert "gradient of weight_imag is lost" in exercises.check_complex_conv(Half).message


@pytest.mark.parametrize("slip", SLIPS)
def test_slips_of_a_complex_convolution_are_named(slip):
    verdict = exercises.check_complex_conv(type("Slipped", (Written,), {"slip": slip}))
    assert not verdict and SLIPS[slip] in verdict.message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (..., "no answer yet"),
        (Written(4, 6), "the class itself"),
        (lambda i, o: Written(i, o), "the class itself"),
        (dict, "stopped with TypeError"),
        (type("Pair", (), {"__init__": lambda self, i, o: None}), "must be an nn.Module"),
    ],
)
def test_what_is_no_class_of_modules_is_told(answer, words):
    verdict = exercises.check_complex_conv(answer)
    assert not verdict and words in verdict.message
