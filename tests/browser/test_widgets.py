"""The lessons' interactive views in JupyterLab in a real browser: a slider moves, figure, sound and numbers follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install -e '.[browser]'")

from dccrn_lib.lessons.evaluation.widgets import ABXSession
from dccrn_lib.runtime.paths import data_dir
from tests.browser.lessons import Lesson, Seen, Widget

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def lesson(browser, lab: tuple[str, Path], screenshots: Path) -> Iterator[Callable[[str], Lesson]]:
    """Open a lesson by name, once."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    address, folder = lab
    page.goto(address)
    page.wait_for_function("window.jupyterapp && window.jupyterapp.restored.then(() => true)")
    opened: dict[str, Lesson] = {}

    def open_lesson(name: str) -> Lesson:
        if name not in opened:
            opened[name] = Lesson(page, folder / f"{name}.ipynb", screenshots)
        return opened[name]

    yield open_lesson
    page.close()


def moved(widget: Widget, before: Seen) -> Seen:
    """What the widget shows when words, pictures and (if it has any) sounds have all changed."""
    return widget.until(
        lambda now: (
            now.text != before.text
            and len(now.pictures) == len(before.pictures)
            and all(a != b for a, b in zip(now.pictures, before.pictures, strict=True))
            and (not before.sounds or now.sounds != before.sounds)
        )
    )


def test_gate(lesson):
    widget = lesson("00_start_here").show("widgets.gate(")
    before = widget.seen()
    widget.picture("00_gate_before")
    assert widget.press("strength", "Home") == "0.00"
    after = moved(widget, before)
    widget.picture("00_gate_after")
    noisy, behind = r"SI-SNR ([-\d.]+) dB noisy", r"([-\d.]+) dB behind the gate"
    assert before.number(behind) > before.number(noisy)
    assert after.number(behind) == pytest.approx(after.number(noisy), abs=0.1)  # an open gate changes nothing


def test_mixer(lesson):
    widget = lesson("01_complex_stft").show("widgets.mixer({")
    before = widget.seen()
    widget.picture("01_mixer_before")
    assert before.number(r"SI-SNR ([-\d.]+) dB") == pytest.approx(0, abs=0.3)
    assert len(before.sounds) == 2 and all(1 < seconds < 4.1 for seconds, *_ in before.sounds)
    assert float(widget.press("SNR (dB)", "ArrowRight", 12)) == 12
    after = widget.until(lambda now: abs(now.number(r"SI-SNR ([-\d.]+) dB") - 12) < 0.3)
    moved(widget, before)
    widget.picture("01_mixer_after")
    assert after.number(r"phase is ([\d.]+) degrees") < before.number(r"phase is ([\d.]+) degrees")
    widget.choose("noise", "rain")
    other = moved(widget, after)
    assert other.number(r"SI-SNR ([-\d.]+) dB") == pytest.approx(12, abs=0.3)


def test_hop_and_window_explorer(lesson):
    widget = lesson("01_complex_stft").show("widgets.explorer(")
    before = widget.seen()
    widget.picture("01_explorer_before")
    assert before.number(r"([\d.]+) frames per second") == 160
    assert int(widget.press("window", "ArrowRight", 4)) == 464
    after = widget.until(lambda now: now.number(r"([\d.]+) frames per second") == 137.9)  # 16000 / (464 / 4)
    moved(widget, before)
    widget.picture("01_explorer_after")
    widget.choose("overlap", "1/4")
    rough = moved(widget, after)
    widget.picture("01_explorer_overlap")
    lowest = r"squared windows add up to ([\d.]+)"
    assert rough.number(lowest) < 0.1 < after.number(lowest)


def test_mask_explorer(lesson):
    widget = lesson("02_dccrn").show("mask_explorer(noisy")
    before = widget.seen()
    widget.picture("02_mask_before")
    scored, gain = r"dB -> ([-\d.]+) dB", r"gain ([-+\d.]+)"
    assert float(widget.press("phase (degrees)", "End")) == 180
    widget.until(lambda now: now.number(gain) < 0)
    inverted = moved(widget, before)  # the title of the mask names its phase
    widget.picture("02_mask_inverted")
    assert inverted.number(gain) == pytest.approx(-before.number(gain), abs=0.02)
    assert inverted.number(scored) == pytest.approx(before.number(scored), abs=0.1)  # SI-SNR is deaf to the sign
    assert float(widget.press("500-1000 Hz (dB)", "Home")) == -40
    dark = moved(widget, inverted)
    widget.picture("02_mask_band_closed")
    assert dark.number(scored) < inverted.number(scored) - 1


def test_attention_explorer(lesson):
    widget = lesson("03_uformer").show("widgets.attention_explorer(", also=("def my_state(",))
    before = widget.seen()
    widget.picture("03_attention_before")
    at = r"frame at ([\d.]+) s"
    readout = int(widget.press("frame", "ArrowLeft", 20))
    after = widget.until(lambda now: now.number(at) == pytest.approx(before.number(at) - 0.2, abs=0.006))
    moved(widget, before)
    widget.picture("03_attention_after")
    assert after.number(at) == pytest.approx(readout / 100, abs=0.006)


def test_layer_pair_browser(lesson):
    widget = lesson("04_attention_transfer").show("layer_browser(o")
    before = widget.seen()
    widget.picture("04_layers_before")
    assert len(before.pictures) == 2 and "encoder.1" in before.text
    assert widget.press("layer", "ArrowRight", 2) == "encoder.3"
    after = widget.until(lambda now: "encoder.3, " in now.text and "encoder.1, " not in now.text)
    after = moved(widget, before)
    widget.picture("04_layers_after")
    divergence = r"KL ([\d.]+) nat"
    assert after.number(divergence) != before.number(divergence)
    widget.click("softmax")
    softmax = widget.until(lambda now: now.number(divergence) != after.number(divergence))
    assert softmax.number(divergence) < 0.5 * after.number(divergence)  # nearly flat at temperature 1


def test_mixture_browser(lesson):
    widget = lesson("05_distillation").show(
        "mixture_browser(tests", also=('runs["student"] = ', 'runs["student_at_kl"] = ')
    )
    before = widget.seen()
    widget.picture("05_mixtures_before")
    assert len(before.pictures) == 1 and len(before.sounds) == 3
    snr = r"input SNR ([-\d.]+) dB"
    assert widget.press("mixture", "ArrowRight") == "1"
    after = widget.until(lambda now: now.number(snr) != before.number(snr))
    after = moved(widget, before)
    widget.picture("05_mixtures_after")
    widget.choose("system", "mini student alone")
    other = widget.until(lambda now: now.pictures != after.pictures and now.sounds != after.sounds)
    assert other.number(snr) == after.number(snr)  # another system, the same mixture
    assert (other.sounds[0], other.sounds[2]) == (after.sounds[0], after.sounds[2]) and other.sounds[1] != after.sounds[
        1
    ]
    widget.picture("05_mixtures_student")


def test_band_browser(lesson):
    widget = lesson("06_evaluation").show("band_browser(items")
    before = widget.seen()
    widget.picture("06_bands_before")
    count = r"n = (\d+)"
    while before.text == widget.seen().text or before.number(count) == widget.seen().number(count):
        widget.drag("SNR (dB)", 1, "ArrowLeft")  # until a mixture has dropped out
        widget.page.wait_for_timeout(500)
    after = widget.seen()
    after = moved(widget, before)
    widget.picture("06_bands_after")
    widget.choose("metric", "STOI")
    other = moved(widget, after)
    assert other.number(count) == after.number(count)  # another metric of the same mixtures


def test_listening_test(lesson):
    widget = lesson("06_evaluation").show("abx_test(heard")
    start = widget.seen()
    widget.picture("06_abx_start")
    assert "10 trials" in start.text and len(start.sounds) == 3
    hidden = ABXSession(10, seed=0).hidden
    for trial, letter in enumerate(hidden, 1):
        now = widget.seen()
        a, b, x = now.sounds
        assert a != b and x == (a if letter == "A" else b)
        wrong = trial == 2  # one mistake, on purpose
        widget.click(f"X is {'AB'['BA'.index(letter)] if wrong else letter}")
        now = widget.until(lambda now, trial=trial: f"of {trial} right" in now.text)
        assert f"{trial - (trial >= 2)} of {trial} right" in now.text
        if trial == 2:
            widget.picture("06_abx_two_answers")
    assert "probability 0.011" in now.text and "you hear a difference. A was mini student" in now.text
    assert not now.sounds
    assert all(button.is_disabled() for button in widget.box.get_by_role("button").all())
    widget.picture("06_abx_end")


def test_own_sound(lesson, tmp_path):
    widget = lesson("07_streaming_and_export").show("own_sound(model)", empty=True)
    widget.picture("07_own_sound_start")
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    widget.upload("Upload", text)
    refused = widget.until(lambda now: "text.wav is not audio" in now.text)
    assert not refused.sounds
    widget.upload("Upload", data_dir() / "demo" / "noisy" / "fan_5db_en.ogg")
    heard = widget.until(lambda now: len(now.sounds) == 2)
    widget.picture("07_own_sound_uploaded")
    assert "4.0 s, 16000 Hz, 1 channel" in heard.text
    before, after = heard.sounds
    assert after[0] == pytest.approx(before[0], abs=0.1) and sum(after[1:]) < sum(before[1:])  # the fan is gone
    widget.click("Record")
    widget.page.wait_for_timeout(2000)
    widget.click("Stop")
    spoken = widget.until(lambda now: "4.0 s" not in now.text and len(now.sounds) == 2)
    widget.picture("07_own_sound_recorded")
    assert 1 < spoken.number(r"([\d.]+) s, 16000 Hz, 1 channel") < 4


def test_latency_explorer(lesson):
    widget = lesson("07_streaming_and_export").show("\n\nlatency_explorer()")
    before = widget.seen()
    widget.picture("07_latency_before")
    assert "(400 - 1) + 6 x 100 = 999 samples" in before.text
    assert widget.press("look-ahead", "Home") == "0"
    widget.until(lambda now: "(400 - 1) + 0 x 100 = 399 samples" in now.text)
    moved(widget, before)
    widget.picture("07_latency_after")
