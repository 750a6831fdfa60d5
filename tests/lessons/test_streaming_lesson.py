"""Lesson 07's own parts: figures, widgets and graders, and the facts that its prose states."""

from __future__ import annotations

import base64
import html
import io
import re
from datetime import UTC, datetime

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F

from dccrn_lib.enhancement.stream import StreamingEnhancer
from dccrn_lib.enhancement.stream_step import StreamingCore
from dccrn_lib.lessons import recorder
from dccrn_lib.lessons.built import streaming as built
from dccrn_lib.lessons.streaming import exercises, figures, widgets
from dccrn_lib.networks.dccrn import DCCRN, DCCRNConfig
from dccrn_lib.networks.presets import build_model
from dccrn_lib.runtime.errors import AudioError


@pytest.fixture(scope="module")
def model() -> DCCRN:
    torch.manual_seed(0)
    return DCCRN(DCCRNConfig(channels=(4, 8, 8, 8, 8, 8), rnn_units=8)).eval()


def sound(rate: int, channels: int, seconds: float = 0.3, peak: float = 0.5, suffix: str = "WAV") -> bytes:
    x = np.random.default_rng(0).uniform(-peak, peak, (int(seconds * rate), channels))
    buffer = io.BytesIO()
    soundfile.write(buffer, x, rate, format=suffix)
    return buffer.getvalue()


# figures


def test_seams_draw_both_signals_and_the_borders():
    offline = np.sin(np.arange(16000) / 20)
    figure = figures.seams(
        offline, np.where(np.arange(16000) % 800 < 20, 0, offline), chunk=800, start=0.5, seconds=0.25
    )
    top, bottom = figure.axes
    assert top.get_ylabel() == "amplitude" and bottom.get_xlabel() == "time (s)"
    assert "dB" in bottom.get_ylabel() and "50 ms" in top.get_title(loc="left")
    borders = [line for line in bottom.lines if line.get_linestyle() == ":"]
    assert len(borders) == 5  # samples 8000, 8800 ... 11200


def test_seam_levels_are_written_on_their_bars():
    figure = figures.seam_levels([800, 16000], [10.0, 20.0])
    axis = figure.axes[0]
    assert "ms" in axis.get_xlabel() and "dB" in axis.get_ylabel()
    assert [t.get_text() for t in axis.texts] == ["10", "20"]
    assert [bar.get_height() for bar in axis.patches] == [10.0, 20.0]


def test_no_text_of_a_drawing_is_white_on_a_light_box():
    light = {figures.PLACES[place] for place in ("encoder", "decoder", "LSTM")}
    assert {figures._ink(colour) for colour in light} == {figures.INK}
    texts = {t.get_text(): t.get_color() for t in figures.delay_line().axes[0].texts}
    assert texts["encoder.0:  t"] == texts["decoder.5:  t - 6"] == figures.INK


@pytest.mark.parametrize(
    ("lookahead", "text", "bars"), [(6, "999 samples = 62.4 ms", 10), (0, "399 samples = 24.9 ms", 4)]
)
def test_staircase_has_a_step_for_every_frame(lookahead, text, bars):
    axis = figures.latency_staircase(400, 100, lookahead).axes[0]
    assert text in [t.get_text() for t in axis.texts]
    assert len(axis.patches) == bars
    assert max(patch.get_x() + patch.get_width() for patch in axis.patches) == 400 + 100 * lookahead


def test_delay_line_draws_as_many_waiting_frames_as_the_core_keeps():
    axis = figures.delay_line().axes[0]
    drawn = [t.get_text() for t in axis.texts if re.fullmatch(r"t-\d", t.get_text())]
    states = StreamingCore(build_model("distil_dccrn_mini")).initial_states()
    assert len(drawn) == sum(s.shape[-1] for name, s in states.items() if name.startswith("skip"))
    assert axis.get_title().endswith("t - 6 is ready")


def test_state_bars_say_the_sum():
    axis = figures.state_bars({"a": {"encoder": 1000, "decoder": 2000}, "b": {"encoder": 500}}).axes[0]
    assert {"12 kB", "2 kB"} <= {t.get_text() for t in axis.texts}
    assert "kB" in axis.get_xlabel()


def test_reach_names_its_largest_value():
    axis = figures.reach_by_alignment({"six": {0: 900, 99: 999}}).axes[0]
    assert "999 samples" in [t.get_text() for t in axis.texts]
    assert "hop" in axis.get_xlabel() and "future" in axis.get_ylabel()


def test_budget_adds_up_to_the_formula():
    axis = figures.latency_budget({"six": (400, 100, 6), "none": (400, 100, 0)}).axes[0]
    texts = [t.get_text() for t in axis.texts]
    assert "62.4 ms + computing" in texts and "24.9 ms + computing" in texts
    assert [t for t in texts if t in "123456"] == list("123456")
    assert axis.get_xlabel() == "latency (ms)"


# widgets


@pytest.mark.parametrize(("rate", "channels", "suffix"), [(44100, 2, "WAV"), (8000, 1, "FLAC"), (48000, 1, "OGG")])
def test_enhance_bytes_keeps_rate_channels_and_length(model, rate, channels, suffix):
    result = widgets.enhance_bytes(sound(rate, channels, suffix=suffix), model)
    assert result.sample_rate == rate and result.before.shape == result.after.shape
    assert result.before.shape[0] == channels and result.gain == 1.0
    assert f"{rate} Hz, {channels} channel" in result.summary


def test_a_loud_sound_lowers_both_alike(model):
    buffer = io.BytesIO()
    x = 2.0 * np.sin(np.arange(8000) / 10)
    soundfile.write(buffer, x, 16000, format="WAV", subtype="FLOAT")
    result = widgets.enhance_bytes(buffer.getvalue(), model)
    assert max(np.abs(result.before).max(), np.abs(result.after).max()) <= 1.0
    assert np.allclose(result.before[0], x * result.gain, atol=1e-5)
    assert "lowered by" in result.summary


@pytest.mark.parametrize(("data", "words"), [(b"", "empty"), (b"this is no sound", "not audio")])
def test_a_bad_upload_is_named_in_one_line(model, data, words):
    with pytest.raises(AudioError, match=words) as problem:
        widgets.enhance_bytes(data, model, "talk.wav")
    assert "talk.wav" in str(problem.value) and "\n" not in str(problem.value)
    assert words in widgets.answer_to(data, model, "talk.wav")


def test_a_recording_arrives_as_base64(model):
    text = base64.b64encode(sound(16000, 1)).decode()
    answer = widgets.answer_to(text, model)
    assert answer.count("<audio") == 2 and "16000 Hz, 1 channel" in answer
    assert "damaged" in widgets.answer_to("not base64!", model)
    assert "not a WAV" in widgets.answer_to(base64.b64encode(b"webm").decode(), model)


def test_names_from_outside_are_escaped(model):
    assert "<script>" not in widgets.answer_to(b"", model, "<script>alert(1)</script>")


def test_own_sound_answers_uploads_and_recordings(model):
    box = widgets.own_sound(model)
    (upload, record), answer = box.children[0].children, box.children[1]
    data = sound(22050, 2)
    item = {"name": "a.wav", "type": "audio/wav", "size": len(data), "content": memoryview(data)}
    upload.value = ({**item, "last_modified": datetime.now(UTC)},)
    assert "22050 Hz, 2 channels" in answer.value
    field = record.children[1]
    field.value = base64.b64encode(sound(16000, 1)).decode()
    assert "16000 Hz, 1 channel" in answer.value


def test_recorder_button_carries_its_script(model):
    button, field = recorder.recorder(lambda text: None).children
    (name,) = field._dom_classes
    assert name.startswith(recorder.FIELD_CLASS)
    assert f".{name} textarea" in html.unescape(button.value) and "SECONDS" not in button.value
    assert recorder.recorder(lambda text: None).children[1]._dom_classes != field._dom_classes
    assert button.value.count("<button") == 1 and "getUserMedia" in button.value


def test_latency_explorer_redraws():
    box = widgets.latency_explorer()
    _, parts, lookahead, sentence, picture = box.children
    assert "999 samples = 62.4 ms" in sentence.value
    before = picture.value
    lookahead.value = 0
    assert "399 samples" in sentence.value and picture.value != before
    parts.value = 2
    assert "hop" not in sentence.value and "80 network steps per second, each in less than 12.50 ms" in sentence.value


@pytest.mark.parametrize("case", [(400, 100, 6, 999), (400, 100, 0, 399), (320, 160, 3, 799)])
def test_latency_of_is_the_formula(case):
    *numbers, samples = case
    assert widgets.latency_of(*numbers)[0] == samples


# exercises


def test_solutions_are_right():
    assert exercises.check_latency(exercises.solution_latency())
    assert exercises.check_waits(exercises.solution_waits())
    assert exercises.check_state_size(exercises.solution_state_size)
    assert exercises.check_to_the_end(exercises.solution_to_the_end)


def test_solutions_agree_with_the_library():
    assert exercises.solution_latency() == exercises.latency_of_case() == 799
    core = StreamingCore(build_model("distil_dccrn"))
    states = core.initial_states()
    size = sum(s.numel() for name, s in states.items() if name.startswith("encoder"))
    assert exercises.solution_state_size(core.config.channels, core.config.stft.fft_size) == size
    waits = [states[f"skip.{5 - i}"].shape[-1] if i < 5 else 0 for i in range(6)]
    assert exercises.solution_waits() == waits


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "no answer"),
        ("a", "expected a number"),
        (800, "one too many"),
        (480, "look-ahead of the frames alone"),
        (319, "without any look-ahead"),
        (640, "hop - 1"),
        (49.9, "milliseconds"),
        (123, "count how many"),
    ],
)
def test_latency_mistakes(answer, words):
    verdict = exercises.check_latency(answer)
    assert not verdict and words in verdict.message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "no answer"),
        ([1, 2], "six whole numbers"),
        (3, "six whole numbers"),
        ([0.5] * 6, "six whole numbers"),
        ([0, 1, 2, 3, 4, 5], "order of the decoder"),
        ([0] * 6, "different times"),
        ([6, 5, 4, 3, 2, 1], "one frame too many"),
        ([6] * 6, "accumulates"),
        ([5, 5, 3, 2, 1, 0], "came before"),
    ],
)
def test_waits_mistakes(answer, words):
    verdict = exercises.check_waits(answer)
    assert not verdict and words in verdict.message


def _sum(channels, fft, shift=0, inputs=True, first=2):
    sizes = [first, *channels]
    return sum((sizes[i] if inputs else sizes[i + 1]) * (fft // 2 >> i + shift) for i in range(len(channels)))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda c, f: ..., "no answer"),
        (lambda c, f: "many", "whole number"),
        (lambda c, f: 0.5, "whole number"),
        (lambda c, f: _sum(c, f, 1, inputs=False), "GIVE"),
        (lambda c, f: 2 * _sum(c, f), "ONE old"),
        (lambda c, f: _sum(c, f) + 2, "DC"),
        (lambda c, f: _sum(c, f, first=1), "real and the imaginary"),
        (lambda c, f: sum([2, *c[:-1]]), "counts channels"),
        (lambda c, f: 7, "another number"),
    ],
)
def test_state_size_mistakes(function, words):
    verdict = exercises.check_state_size(function)
    assert not verdict and words in verdict.message


def shown(student, hops) -> torch.Tensor:
    """The right samples."""
    return exercises.solution_to_the_end(student, hops)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "no answer"),
        (lambda student, hops: ..., "nothing yet"),
        (lambda student, hops: list(hops), "must return a tensor"),
        (lambda student, hops: shown(student, hops)[None], "one tensor (sample,)"),
        (
            lambda student, hops: exercises.stream_with_end(student, hops, 0, 0),
            "900 samples are still owed: nothing says",
        ),
        (lambda student, hops: torch.cat(list(built.enhance_live(student, hops))), "cut them off"),
        (lambda student, hops: torch.cat([torch.zeros(300), shown(student, hops)]), "cut them off"),
        (
            lambda student, hops: exercises.stream_with_end(student, hops, 0, 6),
            "300 samples are still owed: offline three more frames",
        ),
        (
            lambda student, hops: exercises.stream_with_end(student, hops, 3, 0),
            "600 samples are still owed: the mask is six frames late",
        ),
        (lambda student, hops: exercises.stream_with_end(student, hops, 9, 0), "pushed zeros"),
        (lambda student, hops: exercises.stream_with_end(student, hops, 3, 6, torch.zeros(257) * 1j), "pushed zeros"),
        (lambda student, hops: F.pad(exercises.stream_with_end(student, hops, 0, 0), (0, 900)), "zeros that you added"),
        (lambda student, hops: student(torch.cat(hops)[None])[0], "called on the whole signal"),
        (lambda student, hops: student.estimate_mask(student.stft(torch.cat(hops)[None])), "called on the whole"),
        (lambda student, hops: exercises.stream_with_end(student, hops, 3, 6), "clamp(-1, 1)"),
        (lambda student, hops: torch.cat([*hops]), "differ from the offline ones"),
        (lambda student, hops: shown(student, hops).roll(1), "differ from the offline ones"),
        (lambda student, hops: shown(student, [*hops, hops[0]]), "2000 samples went in, 2100 came out"),
        (lambda student, hops: shown(student, hops) if len(hops) > 6 else torch.cat(hops), "differ from"),
    ],
)
def test_mistakes_at_the_end_of_a_stream(answer, words):
    verdict = exercises.check_to_the_end(answer)
    assert not verdict and words.casefold() in verdict.message.casefold()


def test_answers_in_other_types_are_no_slip():
    assert exercises.check_to_the_end(lambda s, hops: exercises.solution_to_the_end(s, hops).double())
    assert exercises.check_latency(torch.tensor(exercises.solution_latency()))
    assert exercises.check_waits(np.arange(5, -1, -1)) and exercises.check_waits(torch.arange(5, -1, -1))


def test_the_check_of_the_end_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    assert exercises.check_to_the_end(exercises.solution_to_the_end)
    assert torch.equal(torch.get_rng_state(), before)


def test_zeros_instead_of_flush_change_the_last_six_frames():
    torch.manual_seed(0)
    network = build_model("distil_dccrn_mini").eval()
    with torch.no_grad():
        for layer in [*network.encoder, *network.decoder]:
            layer.conv.bias_real.normal_(0.0, 0.2)
        core, frames = StreamingCore(network), 30
        spectrum = torch.randn(1, 2, 257, frames)
        padded = torch.nn.functional.pad(spectrum, (0, 6))
        ended = torch.cat([torch.ones(frames), torch.zeros(6)])
        offline, _ = core.stream_step(padded, core.initial_states(), ended)
        zeros, _ = core.stream_step(padded, core.initial_states())
    differs = (offline[..., 6:] - zeros[..., 6:]).abs().amax(dim=(0, 1, 2)) > 1e-6  # (frame,)
    assert differs.nonzero().flatten().tolist() == list(range(24, 30))


# what the prose says


def test_chunks_on_their_own_are_not_the_offline_output(model):
    torch.manual_seed(1)
    x = 0.3 * torch.randn(1, 8000)
    with torch.no_grad():
        whole = model(x)
        pieces = torch.cat([model(piece) for piece in x.split(800, dim=1)], dim=1)
    stream = StreamingEnhancer(model)
    streamed = torch.cat([*(stream.push(piece) for piece in x[0].split(800)), stream.flush()])
    assert (pieces - whole).abs().max() > 1e-3
    assert torch.allclose(streamed[stream.latency_samples :], whole[0], atol=1e-5)


@pytest.mark.parametrize(("name", "column"), [("distil_dccrn", 2), ("distil_dccrn_lookahead0", 3)])
def test_the_table_of_states_in_the_latency_note(root, name, column):
    text = (root / "docs" / "latency.md").read_text(encoding="utf-8")
    table = text.split("## What a stream remembers")[1].split("##")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    noted = {row[0]: int(row[column].replace(",", "")) for row in rows[2:]}
    counted = dict.fromkeys(noted, 0)
    network = build_model(name)
    for key, state in StreamingCore(network).initial_states().items():
        place = {"lstm": "LSTM", "valid": "spectrum", "skip": "skips"}.get(key.split(".")[0], key.split(".")[0])
        counted[place] += state.numel()
    stream = StreamingEnhancer(network)
    counted["STFT"], counted["overlap-add"] = stream._input.numel(), stream._tail.numel()
    counted["sum"] = sum(counted.values())
    assert noted == counted
