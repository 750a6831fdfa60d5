"""Lesson 03: figures, attention explorer, inspection, ablation and lesion, exercises."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure

from dccrn_lib import build_model, count_parameters, load_model
from dccrn_lib.distillation import FeatureTap
from dccrn_lib.experiments.uformer_parts import VARIANTS, train_briefly
from dccrn_lib.lessons.built import uformer as built
from dccrn_lib.lessons.plotting import drawing
from dccrn_lib.lessons.uformer import exercises, figures, widgets
from dccrn_lib.lessons.uformer import figures_attention as attention_figures
from dccrn_lib.lessons.uformer import figures_worth as worth_figures
from dccrn_lib.networks.uformer import Uformer, UformerConfig
from dccrn_lib.networks.uformer.attention import SIGNS, TRIPLES, AttentionBlock
from dccrn_lib.networks.uformer.conformer import DilatedBlock
from dccrn_lib.networks.uformer.inspection import attention_maps, attention_weights, stage_updates
from dccrn_lib.networks.uformer.lesions import lesion, stage_names
from dccrn_lib.runtime.errors import ConfigError
from dccrn_lib.runtime.paths import notebooks_dir

FRAMES = 30


@pytest.fixture(scope="module")
def model() -> Uformer:
    torch.manual_seed(0)
    config = UformerConfig(channels=(1, 2, 4, 4, 8, 8, 8), conformer_hidden=4, attention_hidden=4, dilated_channels=4)
    return Uformer(config).eval()


@pytest.fixture(scope="module")
def spectrum() -> torch.Tensor:
    return torch.randn(1, 257, FRAMES, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def maps(model, spectrum):
    return attention_maps(model, spectrum)


# ---------------------------------------------------------------------------------------------- what the reader builds


def _wave(samples: int, batch: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(0))


def _twins() -> tuple[built.MyUformer, Uformer]:
    """The mini teacher twice, with the same random weights and statistics."""
    torch.manual_seed(0)
    theirs, mine = build_model("uformer_mini"), built.MyUformer()
    theirs.train()(_wave(3200))  # BatchNorm's statistics are no longer 0 and 1
    mine.load_state_dict(built.my_state(theirs.state_dict()))
    return mine, theirs


@pytest.mark.parametrize("samples", [1, 159, 160, 4321])
def test_built_uformer_equals_the_library(samples):
    mine, theirs = (network.eval() for network in _twins())
    x = _wave(samples)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(mine(x), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert count_parameters(mine) == count_parameters(theirs)


def test_built_uformer_takes_the_shipped_teacher_and_its_layers_can_be_tapped():
    theirs, mine = load_model("uformer"), built.load_teacher("uformer")
    with torch.no_grad(), FeatureTap(theirs) as their_tap, FeatureTap(mine) as my_tap:
        expected = theirs(_wave(8000))
        torch.testing.assert_close(mine(_wave(8000)), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    assert expected.abs().max() > 1e-3
    assert list(my_tap.features) == list(their_tap.features)
    for layer, feature in their_tap.features.items():
        torch.testing.assert_close(my_tap.features[layer], feature, rtol=1e-3, atol=1e-3)


def test_built_uformer_learns_like_the_library():
    mine, theirs = _twins()
    curves = [train_briefly(network, [(_wave(3200), _wave(3200) / 2)] * 3) for network in (mine, theirs)]
    assert curves[0] == pytest.approx(curves[1], abs=0.02) and curves[0][-1] != curves[0][0]


def test_gradients_of_the_built_uformer_are_finite_on_silence():
    mine, _ = _twins()
    mine(torch.zeros(1, 3200)).square().sum().backward()
    gradients = [p.grad for p in mine.parameters() if p.grad is not None]
    assert len(gradients) > 0.9 * len(list(mine.parameters())) and all(g.isfinite().all() for g in gradients)


def test_a_fresh_built_uformer_starts_with_an_open_mask():
    torch.manual_seed(0)
    mine = built.MyUformer().eval()
    with torch.no_grad():
        C, _ = mine.masks(*built.my_streams(mine.stft(_wave(3200))))
    real, imag = (part.mean().item() for part in C.chunk(2, dim=1))
    assert abs(math.degrees(math.atan2(imag, real))) < 30


def test_translated_weights_are_all_used_once():
    theirs = build_model("uformer_mini").state_dict()
    mine = built.my_state(theirs)
    kept = sum(value.numel() for name, value in theirs.items() if not name.endswith("num_batches_tracked"))
    assert sum(value.numel() for value in mine.values()) == kept
    del theirs["encoder.0.complex_conv.weight_real"]
    with pytest.raises(RuntimeError, match=r"Missing key.*encoder.0.complex_conv.weight_real"):
        built.MyUformer().load_state_dict(built.my_state(theirs))


# ------------------------------------------------------------------------------------------------------- inspection
def test_maps_have_their_shapes_and_rows_sum_to_one(maps):
    assert maps["frame"]["magnitude"].shape == (4, FRAMES, FRAMES)
    assert maps["frame"]["complex"].shape == (4, 8, FRAMES, FRAMES)
    assert maps["freq"]["magnitude"].shape == (FRAMES, 4, 4)
    assert maps["freq"]["complex"].shape == (FRAMES, 8, 4, 4)
    for axis in maps.values():
        for weights in axis.values():
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("parts", [1, 2])
def test_weights_times_values_are_the_heads_output(parts):
    head = AttentionBlock(6, 4, "frame", parts).head
    x = torch.randn(3, 9, 6 * parts)
    weights = attention_weights(head, x)
    if parts == 1:
        expected = weights @ head.value(x)
    else:
        results = (weights @ head.project(x)[2]).unflatten(1, (2, 4))  # (batch, part, attention, sequence, d)
        signs = torch.tensor(SIGNS)[:, :, None, None]
        expected = torch.cat((results * signs).sum(2).unbind(1), dim=-1)
    torch.testing.assert_close(head(x), expected, rtol=1e-4, atol=1e-5)


def test_maps_need_attention(spectrum):
    with pytest.raises(ConfigError, match="attention=False"):
        attention_maps(Uformer(UformerConfig(channels=(1, 2, 2, 2, 2, 2, 2), attention=False)), spectrum)


def test_stage_updates_see_a_silenced_stage(model, spectrum):
    updates = stage_updates(model, spectrum)
    assert list(updates["complex"]) == stage_names(model) and len(stage_names(model)) == 12
    assert all(value > 0 for stream in updates.values() for value in stream.values())


# ------------------------------------------------------------------------------------------------ lesion and ablation
@pytest.mark.parametrize("part", ["fusion", "time attention", "frequency attention", "dilated", "feed-forward"])
def test_lesion_changes_the_output_and_leaves_no_trace(model, spectrum, part):
    with torch.no_grad():
        before = model.enhance_spectrum(spectrum)
        with lesion(model, part) as wounded:
            during = wounded.enhance_spectrum(spectrum)
        after = model.enhance_spectrum(spectrum)
    assert torch.equal(before, after)
    assert (during - before).norm() / before.norm() > 1e-4


def test_lesion_of_fusion_is_the_switch(model, spectrum):
    switched = Uformer(UformerConfig(**{**model.config.__dict__, "fusion": False})).eval()
    switched.load_state_dict(model.state_dict())
    with torch.no_grad(), lesion(model, "fusion"):
        torch.testing.assert_close(model.enhance_spectrum(spectrum), switched.enhance_spectrum(spectrum))


def test_lesion_names_the_parts_it_knows(model):
    with (
        pytest.raises(ConfigError, match="no part 'lstm' to bypass; known: fusion, feed-forward 1"),
        lesion(model, "lstm"),
    ):
        pass


def test_training_briefly_fits_one_batch():
    torch.manual_seed(0)
    model = Uformer(UformerConfig(channels=(1, 2, 2, 2, 2, 2, 2), conformer_hidden=2, dilated_channels=2))
    clean = torch.sin(0.3 * torch.arange(2000.0))[None]
    noisy = clean + torch.randn(1, 2000)
    curve = train_briefly(model, [(noisy, clean)] * 12, 1e-2)
    assert len(curve) == 12 and curve[-1] > curve[0] + 0.3 and not model.training


def test_variants_are_switches_of_the_config():
    assert list(VARIANTS) == ["full", "no fusion", "no attention", "neither"]
    for switches in VARIANTS.values():
        UformerConfig(**switches)


# ----------------------------------------------------------------------------------------------------------- figures
def _labels(figure: Figure) -> set[str]:
    return {text for axis in figure.axes for text in (axis.get_xlabel(), axis.get_ylabel()) if text}


def test_architecture_names_every_layer(model):
    figure = figures.architecture((1, 8, 16, 32, 64, 128, 128), stages=stage_names(model))
    words = [text.get_text() for axis in figure.axes for text in axis.texts]
    for side in ("encoder", "decoder"):
        assert [word for word in words if word.startswith(f"{side}.")] == [f"{side}.{i}" for i in range(6)]
    assert words.count("2·128 × 4") == 1 and words.count("1 × 256") == 1 and words.count("+") == 12
    assert "time\nattention" in words and "LayerNorm" in words
    assert any("a fusion behind each of the 12 stages, none behind LayerNorm" in word for word in words)
    assert drawing(figure) is not None  # a vector graphic in the notebook


def test_images_have_a_scale(maps):
    pictures = (
        figures.streams(np.ones((256, 200)), np.ones((256, 200)), np.full((256, 200), -1.0)),
        attention_figures.eight_maps(maps["frame"]["complex"][0].numpy(), TRIPLES, [1] * 8),
        attention_figures.frequency_attention({"a": maps["freq"]["magnitude"].numpy()}),
        attention_figures.masks(*(np.full((256, 200), 0.5),) * 4),
    )
    for figure, scales in zip(pictures, (3, 1, 1, 4), strict=True):
        assert sum(axis.get_label() == "<colorbar>" for axis in figure.axes) == scales


def test_figures_carry_their_axes(maps, spectrum):
    level = widgets.frame_level(spectrum[0].numpy())
    time_maps = maps["frame"]["complex"][0].numpy()
    counts = {(part, stream): 1000 for part in ("encoder", "decoder") for stream in ("complex", "magnitude")}
    seconds = np.array([1.0, 10.0])
    made = {
        "time (s)": figures.streams(np.ones((256, 200)), np.ones((256, 200)), np.full((256, 200), -1.0)),
        "imaginary part of C": figures.fusion_field(),
        "imaginary part": figures.clouds({"a": np.array([1 + 1j]), "b": np.array([1j])}),
        "frames from the present one": figures.dilations([(1, 2), (2, 1)], [{-2, 0, 2}, {-4, 0, 1, 4}]),
        "|stage(x) - x| / |x|": figures.stage_dots({"complex": {"a": 1.0}, "magnitude": {"a": 2.0}}),
        "frame that asks (s)": attention_figures.time_attention(time_maps[0], level),
        "looked at (s)": attention_figures.eight_maps(time_maps, TRIPLES, [s for row in SIGNS for s in row]),
        "band looked at (kHz)": attention_figures.frequency_attention({"a": maps["freq"]["magnitude"].numpy()}),
        "frequency (kHz)": attention_figures.masks(*(np.full((256, 200), 0.5),) * 4),
        "MMAC/s": worth_figures.parts(counts, counts),
        "GMAC per second of audio": worth_figures.attention_cost(seconds, 1e9 * seconds, 3e9, 3.0),
        "dB": worth_figures.worth({"a": [1.0, 2.0]}, "dB"),
        "future given": worth_figures.future_value([0, 0.1, 1], [-10, -20], [[3, 1], [4, 2], [5, 3]]),
        "optimiser step": worth_figures.curves({"a": [[1.0, 2.0], [2.0, 3.0]]}),
    }
    for label, figure in made.items():
        assert isinstance(figure, Figure) and label in _labels(figure), label


def test_exchange_draws_each_weight_as_a_line():
    figure = attention_figures.exchange(np.array([[0.75, 0.25], [0.5, 0.5]]), ["a", "b"], ["c", "d"])
    lines = figure.axes[0].lines
    words = [text.get_text() for text in figure.axes[0].texts]
    assert [line.get_linewidth() for line in lines] == [0.5 + 9 * w for w in (0.75, 0.25, 0.5, 0.5)]
    assert [list(line.get_ydata()) for line in lines] == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert {"a", "b", "c", "d", "0.75"} <= set(words) and words.count("0.50") == 2
    assert drawing(figure) is not None


def test_dilations_draw_each_frame_that_is_seen_and_no_other():
    figure = figures.dilations([(1, 2), (2, 1)], [{-2, 0, 2}, {-4, -1, 0, 1, 4}])
    drawn = [line.get_xdata().reshape(-1, 3)[:, :2].tolist() for line in figure.axes[1].lines]
    assert drawn == [[[-2.5, -1.5], [-0.5, 0.5], [1.5, 2.5]], [[-4.5, -3.5], [-1.5, 1.5], [3.5, 4.5]]]
    words = [text.get_text() for text in figure.axes[1].texts]
    assert words == ["±2 (0.02 s): 3 of 5", "±4 (0.04 s): 5 of 9"]
    assert drawing(figure) is not None


def test_taps_of_signal_and_gate_differ_in_more_than_colour():
    taps = figures.dilations([(1, 2), (2, 1)], [{-2, 0, 2}, {-4, -1, 0, 1, 4}]).axes[0].lines
    assert {(line.get_marker(), line.get_linestyle()) for line in taps[:4]} == {("o", "-"), ("s", "--")}


# ---------------------------------------------------------------------------------------------------------- explorer
def test_reading_of_a_row():
    weights = np.eye(20)
    weights[10] = 0
    weights[10, 15], weights[10, 18] = 0.25, 0.75
    assert widgets.reading(weights, 10) == {
        "future": 1.0,
        "within_50ms": 0.25,
        "looked_at": 18,
        "effective": pytest.approx(math.exp(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))),
    }
    assert "100 % of the weight on later frames" in widgets.sentence(weights, 10)
    assert widgets.reading(np.full((8, 8), 1 / 8), 3)["effective"] == pytest.approx(8)


def test_choose_map_refuses_what_is_not_there(maps):
    assert np.array_equal(widgets.choose_map(maps, "rri", 2), maps["frame"]["complex"][2, 4].numpy())
    with pytest.raises(ConfigError, match="unknown head 'xyz'"):
        widgets.choose_map(maps, "xyz", 0)
    with pytest.raises(ConfigError, match="band must be 0 .. 3"):
        widgets.choose_map(maps, "rrr", 4)


def test_moving_the_slider_changes_the_picture(model, spectrum):
    explorer = widgets.attention_explorer(model, spectrum, frame=5)
    (head, band), slider, words, picture = explorer.children[0].children, *explorer.children[1:]
    first, said = picture.value, words.value
    slider.value = 20
    assert picture.value != first and words.value != said and "0.20 s" in words.value
    second = picture.value
    head.value, band.value = "iii", 3
    assert picture.value != second


# --------------------------------------------------------------------------------------------------------- exercises
def test_solutions_are_right():
    assert exercises.check_conjugate_signs(exercises.solution_conjugate_signs())
    assert exercises.check_causal_attention(exercises.solution_causal_attention)
    assert exercises.check_dilated_block(exercises.solution_dilated_block)
    assert exercises.check_lookahead(exercises.solution_lookahead)


def test_conjugate_signs_by_multiplying_numbers():
    z = torch.randn(3, dtype=torch.complex128)
    total = z[0] * z[1].conj() * z[2]
    real = imag = 0.0
    for triple, sign in exercises.solution_conjugate_signs().items():
        term = math.prod((x.real if letter == "r" else x.imag).item() for x, letter in zip(z, triple, strict=True))
        real, imag = (real, imag + sign * term) if triple.count("i") % 2 else (real + sign * term, imag)
    assert (real, imag) == (pytest.approx(total.real.item()), pytest.approx(total.imag.item()))


PLAIN = dict(zip(TRIPLES, (int(s) for row in SIGNS for s in row), strict=True))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "fill in a sign"),
        ({"rrr": 1}, "eight keys"),
        ({**PLAIN, "iii": 0}, r"a sign is \+1 or -1"),
        (PLAIN, "signs of q k v"),
        ({t: -s if t[0] == "i" else s for t, s in PLAIN.items()}, "conjugated the query"),
        ({t: -s if t[2] == "i" else s for t, s in PLAIN.items()}, "conjugated the value"),
        ({t: -s for t, s in exercises.solution_conjugate_signs().items()}, "wrong way round"),
        ({**exercises.solution_conjugate_signs(), "iii": -1}, "look at iii"),
    ],
)
def test_conjugate_sign_mistakes(answer, words):
    verdict = exercises.check_conjugate_signs(answer)
    assert not verdict and re.search(words, verdict.message)


def _attention(hide=None, after=None, scale=True, axis=-1):
    def answer(q, k, v):
        logits = q @ k.transpose(-1, -2) / (q.shape[-1] ** 0.5 if scale else 1)
        future = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
        if hide is not None:
            logits = hide(logits, future)
        weights = torch.softmax(logits, dim=axis)
        return (after(weights, future) if after else weights) @ v

    return answer


SEVEN = torch.ones(7, 7, dtype=torch.bool).triu(1)


def _hidden(logits, future):
    return logits.masked_fill(future, -math.inf)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "write a function"),
        (lambda q, k, v: None, "returns None"),
        (lambda q, k, v: q[0], "expected a tensor"),
        (_attention(), "nothing is hidden"),
        (_attention(lambda x, f: x.masked_fill(f.T, -math.inf)), "wrong side"),
        (
            _attention(lambda x, f: x.masked_fill(f | torch.eye(7, dtype=torch.bool), -math.inf)),
            "without any frame left",
        ),
        (_attention(lambda x, f: x + f * -math.inf), "0 * -inf is NaN"),
        (_attention(after=lambda w, f: w.masked_fill(f, 0)), "masked after the softmax"),
        (_attention(lambda x, f: x.masked_fill(f, 0)), "a logit of 0 is no mask"),
        (_attention(_hidden, scale=False), "scale"),
        (_attention(_hidden, axis=-2), "softmax over the asking frames"),
        (_attention(lambda x, f: x.masked_fill(f.roll(1, 1), -math.inf)), "still seen"),
        (_attention(lambda x, f: _hidden(x * 3, f)), "no future is seen"),
        (_attention(lambda x, f: _hidden(x * x.shape[-1] / 7, f)), "not for d = 9"),  # any size but 7 frames
        (lambda q, k, v: _attention(_hidden)(q * 2 * q.shape[-1] ** -0.5, k, v), "not for d = 9"),  # d / 2
        (_attention(lambda x, f: x.masked_fill(SEVEN, -math.inf)), "5 frames stop it"),
        (_attention(lambda x, f: x.masked_fill(f, -20.0)), "the mask leaks"),
        (_attention(lambda x, f: x - 20 * f), "the mask leaks"),
    ],
)
def test_causal_attention_mistakes(answer, words):
    verdict = exercises.check_causal_attention(answer)
    assert not verdict and words in verdict.message, verdict


@pytest.mark.parametrize(
    "answer",
    [
        _attention(lambda x, f: x.masked_fill(f, -1e9)),
        _attention(lambda x, f: x + torch.zeros_like(x).masked_fill(f, -math.inf)),
        _attention(after=lambda w, f: w.masked_fill(f, 0) / w.masked_fill(f, 0).sum(-1, keepdim=True)),
        lambda q, k, v: exercises.solution_causal_attention(q.double(), k.double(), v.double()),
    ],
)
def test_other_ways_to_hide_the_future_are_right(answer):
    assert exercises.check_causal_attention(answer)


def _block(start=None, gate=torch.sigmoid, second=torch.sigmoid, end=lambda x, z: x + z, axes=(0, 3, 1, 2)):
    """A dilated block as a reader writes it, with one of its lines changed."""

    def answer(block, x):
        u = (start or (lambda b, x: b.activation(b.reduce(b.norm_in(x)))))(block, x)
        u = u.permute(axes)
        y = (block.dilated(u) * gate(block.gate(u))).permute([axes.index(axis) for axis in range(4)])
        y = block.norm_gated(y)
        return end(x, block.restore(y * second(y)))

    return answer


def _exchanged(block, x):
    return exercises.solution_dilated_block(
        SimpleNamespace(**{**vars(block), "dilated": block.gate, "gate": block.dilated}), x
    )


def _gate_before_the_norm(block, x):
    u = block.activation(block.reduce(block.norm_in(x))).permute(0, 3, 1, 2)
    y = (block.dilated(u) * torch.sigmoid(block.gate(u))).permute(0, 2, 3, 1)
    return x + block.restore(block.norm_gated(y * torch.sigmoid(y)))


def _gate_in_a_row(block, x):
    u = block.dilated(block.activation(block.reduce(block.norm_in(x))).permute(0, 3, 1, 2))
    y = block.norm_gated((u * torch.sigmoid(block.gate(u))).permute(0, 2, 3, 1))
    return x + block.restore(y * torch.sigmoid(y))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "write a function"),
        (lambda block, x: None, "returns None"),
        (lambda block, x: x[0], "expected a tensor"),
        (lambda block, x: block(x), "not callable"),
        (lambda block, x: x + block.dilated(block.reduce(x)), "permute between them"),
        (_block(gate=torch.relu), "ReLU where a sigmoid"),
        (_block(second=torch.relu), "ReLU where a sigmoid"),
        (_block(gate=torch.relu, second=torch.relu), "ReLU where a sigmoid"),
        (_block(gate=torch.tanh), "tanh where a sigmoid"),
        (_exchanged, "are exchanged: the sigmoid"),
        (_gate_in_a_row, "side by side"),
        (_block(end=lambda x, z: z), "residual is forgotten"),
        (_block(end=lambda x, z: x + z / 2), "half of the correction"),
        (lambda b, x: b.norm_in(x) + exercises.solution_dilated_block(b, x) - x, "the residual is LN(x)"),
        (_gate_before_the_norm, "stands before the LayerNorm"),
        (_block(second=torch.ones_like), "second gate is missing"),
        (_block(gate=lambda y: y), "a sigmoid is missing"),
        (_block(gate=torch.ones_like), "first gate is missing"),
        (_block(start=lambda b, x: b.reduce(b.norm_in(x))), "PReLU is missing"),
        (_block(start=lambda b, x: b.activation(b.reduce(x))), "first LayerNorm is missing"),
        (_block(axes=(0, 3, 2, 1)), "freq and frame are exchanged"),
        (lambda block, x: x, "the values differ"),
    ],
)
def test_dilated_block_mistakes(answer, words):
    verdict = exercises.check_dilated_block(answer)
    assert not verdict and words in verdict.message, verdict


def test_the_answer_of_a_dilated_block_is_graded_against_the_librarys_layers():
    before = torch.get_rng_state()
    layers = vars(exercises._dilated_layers())
    assert torch.equal(torch.get_rng_state(), before)  # grading leaves the reader's random numbers alone
    theirs = DilatedBlock(channels=6, hidden=5, index=3, parts=1).eval()
    state = {f"{name}.{key}": v for name, layer in layers.items() for key, v in layer.state_dict().items()}
    theirs.load_state_dict(state)
    x = torch.randn(1, 4, 20, 6)
    with torch.no_grad():
        torch.testing.assert_close(exercises.solution_dilated_block(SimpleNamespace(**layers), x), theirs(x))


def _frames(blocks):
    return sum(max(2**k, 2 ** (blocks - 1 - k)) for k in range(blocks))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "write a function"),
        (lambda b, w, h: None, "returns None"),
        (lambda b, w, h: w - 1 + h * 2 * (2**b - 1), "side by side"),
        (lambda b, w, h: w - 1 + h * (2**b - 1), "one branch only"),
        (lambda b, w, h: w - 1 + h * 2 ** (b - 1), "widest block"),
        (lambda b, w, h: h * _frames(b), "covers window - 1"),
        (lambda b, w, h: w + h * _frames(b), "one sample too many"),
        (lambda b, w, h: _frames(b), "these are frames"),
        (lambda b, w, h: w - 1 + 2 * h * _frames(b), "twice the dilation"),
        (lambda b, w, h: 7, "for 8 blocks, window 400 and hop 160 you give 7, it must be 77199"),
    ],
)
def test_lookahead_mistakes(answer, words):
    verdict = exercises.check_lookahead(answer)
    assert not verdict and words in verdict.message, verdict


def test_lookahead_solution_is_the_librarys():
    from dccrn_lib.networks.lookahead import expected_lookahead

    model = Uformer(UformerConfig(channels=(1, 2, 2, 2, 2, 2, 2), attention=False))
    assert exercises.solution_lookahead(8, 400, 160) == expected_lookahead(model) == 77_199


@pytest.mark.parametrize(
    ("noisy", "clean", "words"),
    [(4.0, None, "go together"), (None, 4.0, "go together"), (4.0, 3.8, "of one length"), (0.5, 0.5, "1.5 s or more")],
)
def test_recordings_of_ones_own_are_a_pair_or_refused(noisy, clean, words, tmp_path):
    lesson = nbformat.read(notebooks_dir() / "03_uformer.ipynb", as_version=4)
    (source,) = [c.source for c in lesson.cells if c.cell_type == "code" and "(noisy_file, clean_file) if" in c.source]
    mini = build_model("uformer_mini")
    names = {
        "uformer": mini, "stages": [], "systems_folder": "", "clip": "fan_5db_en", "torch": torch,
        "load_model": lambda _: mini, "count_parameters": count_parameters,
    }  # fmt: skip
    for key, seconds in (("noisy_file", noisy), ("clean_file", clean)):
        names[key] = "" if seconds is None else str(tmp_path / f"{key}.wav")
        if seconds is not None:
            soundfile.write(names[key], np.full(int(16000 * seconds), 0.1), 16000)
    with pytest.raises(AssertionError, match=words):
        exec(source, names)
