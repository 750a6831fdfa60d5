"""The page in a real browser: equal to Python, silent on the network, usable by keyboard and on a phone."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from dccrn_lib.audio.resampling import resample
from dccrn_lib.enhancement.level import LevelMeter
from dccrn_lib.enhancement.stream import StreamingEnhancer
from dccrn_lib.enhancement.waveform import enhance_waveform
from dccrn_lib.networks.weights import load_model
from dccrn_lib.runtime.paths import project_root
from tests.demo.demo_page import Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return load_model("distil_dccrn")


def clip(name: str = "fan_5db_en", seconds: float = 1.5) -> np.ndarray:
    samples, rate = soundfile.read(project_root() / f"data/demo/noisy/{name}.ogg", dtype="float32")
    return samples[: int(seconds * rate)]


def streamed(model: torch.nn.Module, samples: np.ndarray) -> np.ndarray:
    """What StreamingEnhancer makes of a recording at 16 kHz without its offset, brought to the network's level."""
    meter = LevelMeter(1, 16000)
    meter.add(samples[None])
    scales, stream = meter.scales(0, samples.size)[0], StreamingEnhancer(model)
    centred = samples - meter.offset()[0]
    late = np.concatenate([stream.push(centred / scales), stream.flush()])
    return late[stream.latency_samples :] * scales


@pytest.mark.parametrize("form", ["file", "http"])
def test_output_equals_the_streaming_enhancer(visit, model, tmp_path: Path, form: str):
    x = clip()
    soundfile.write(tmp_path / "clip.wav", x, 16000, subtype="FLOAT")
    v = visit(form)
    v.choose(tmp_path / "clip.wav")
    np.testing.assert_allclose(v.channels("noisy")[0], x, atol=1e-7)
    enhanced = v.channels("enhanced")[0]
    np.testing.assert_allclose(enhanced, streamed(model, x), atol=1e-5)
    assert np.abs(enhanced - x).max() > 0.02  # it does something
    print(f"\n{form}: real-time factor {v.page.evaluate('dccrn.sound.rtf'):.2f}")


def test_stereo_at_another_rate_and_level_equals_python(visit, model, tmp_path: Path):
    x = 0.02 * resample(np.stack([clip(seconds=0.8), clip("babble_5db_en", 0.8)]), 16000, 44100)
    soundfile.write(tmp_path / "stereo.wav", x.T, 44100, subtype="PCM_24")
    read, _ = soundfile.read(tmp_path / "stereo.wav", dtype="float32")
    v = visit()
    v.choose(tmp_path / "stereo.wav")
    assert v.page.evaluate("dccrn.sound.sampleRate") == 44100
    np.testing.assert_allclose(v.channels("enhanced"), enhance_waveform(model, read.T, 44100), atol=1e-5)
    v.page.click("summary")
    v.page.check("#mono")
    soundfile.write(tmp_path / "again.wav", x.T[:8000], 44100, subtype="PCM_24")
    v.choose(tmp_path / "again.wav")
    mono = v.channels("noisy")
    assert mono.shape == (1, 8000)
    np.testing.assert_allclose(mono[0], read[:8000].mean(axis=1), atol=1e-7)


def test_a_clip_takes_one_click_and_equals_python(visit, model, screenshots: Path):
    v = visit(**DESKTOP)
    assert v.page.locator("#clips button").count() == 3
    v.page.screenshot(path=screenshots / "demo_desktop_start.png", full_page=True)
    v.page.click("#clips button >> nth=0")
    v.until("dccrn.sound?.rtf > 0")
    decoded = v.channels("noisy")[0]
    np.testing.assert_allclose(decoded, clip(seconds=4), atol=1e-3)  # two decoders of Vorbis
    np.testing.assert_allclose(v.channels("enhanced")[0], streamed(model, decoded), atol=1e-5)
    v.page.wait_for_timeout(500)
    v.page.screenshot(path=screenshots / "demo_desktop_result.png", full_page=True)


def test_works_without_a_network_and_may_not_send(visit, tmp_path: Path):
    v = visit(offline=True)
    soundfile.write(tmp_path / "clip.wav", clip(seconds=0.3), 16000)
    v.choose(tmp_path / "clip.wav")
    send = """async () => {
      const tries = [fetch("https://example.org/", {method: "POST", body: "sound"}).then(() => "sent", () => "refused")];
      tries.push(new Promise((done) => {
        const image = Object.assign(new Image(), {onload: () => done("sent"), onerror: () => done("refused")});
        image.src = "https://example.org/sound.png";
      }));
      return Promise.all(tries);
    }"""
    note = "(e) => refused.push(e.effectiveDirective)"
    v.page.evaluate(f"globalThis.refused = []; void document.addEventListener('securitypolicyviolation', {note})")
    assert v.page.evaluate(send) == ["refused", "refused"]
    v.page.wait_for_timeout(200)
    assert set(v.page.evaluate("refused")) == {"connect-src", "img-src"}
    assert "Nothing leaves your machine" in v.page.inner_text(".privacy")
    assert v.outside == []  # refused before anything was asked
    v.errors.clear()  # the refusals


@pytest.mark.parametrize("content", [b"This is a letter, no sound. " * 40, b""])
def test_a_file_that_is_no_sound_gets_a_clear_message(visit, tmp_path: Path, content: bytes):
    (tmp_path / "letter.wav").write_bytes(content)
    v = visit()
    v.page.set_input_files("#file", tmp_path / "letter.wav")
    v.until("!document.getElementById('problem').hidden")
    message = v.page.inner_text("#problem")
    assert message.startswith("letter.wav ") and message.endswith(".")
    assert "cannot be decoded" in message if content else "is empty" in message
    soundfile.write(tmp_path / "good.wav", clip(seconds=0.2), 16000)
    v.page.set_input_files("#file", tmp_path / "good.wav")  # the page goes on, the message goes
    v.until("dccrn.sound?.rtf > 0 && document.getElementById('problem').hidden")


def test_cancel_stops_the_computing(visit, tmp_path: Path):
    soundfile.write(tmp_path / "long.wav", np.tile(clip(seconds=4), 15), 16000)
    v = visit()
    v.page.set_input_files("#file", tmp_path / "long.wav")
    v.until("document.getElementById('progress').value > 0.005")
    assert re.search(r"long.wav: \d+ %", v.page.inner_text("#status"))
    v.page.click("#cancel")
    v.until("document.getElementById('work').hidden")
    assert v.page.evaluate("dccrn.sound === undefined")
    soundfile.write(tmp_path / "short.wav", clip(seconds=0.2), 16000)
    v.choose(tmp_path / "short.wav")


def test_a_file_may_be_dropped(visit, tmp_path: Path):
    v = visit()
    soundfile.write(tmp_path / "dropped.wav", clip(seconds=0.2), 16000)
    content = base64.b64encode((tmp_path / "dropped.wav").read_bytes()).decode()
    drop = """(content) => {
      const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0)), dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], "dropped.wav"));
      for (const type of ["dragenter", "dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer}));
    }"""
    v.page.evaluate(drop, content)
    v.until("dccrn.sound?.name === 'dropped.wav' && dccrn.sound.rtf > 0")


def test_download_is_the_mixture_that_is_heard(visit, tmp_path: Path):
    v = visit()
    soundfile.write(tmp_path / "clip.wav", clip(seconds=0.5), 16000, subtype="FLOAT")
    v.choose(tmp_path / "clip.wav")
    for strength in (100, 40):
        v.page.evaluate(
            """(value) => { const s = document.getElementById("strength"); s.value = value;
            s.dispatchEvent(new Event("input")); s.dispatchEvent(new Event("change")); }""",
            strength,
        )
        with v.page.expect_download() as arrived:
            v.page.click("#download")
        assert arrived.value.suggested_filename == "clip_enhanced.wav"
        arrived.value.save_as(tmp_path / "out.wav")
        samples, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
        noisy, enhanced = v.channels("noisy")[0], v.channels("enhanced")[0]
        share = strength / 100
        np.testing.assert_allclose(samples, (1 - share) * noisy + share * enhanced, atol=5e-5)  # 16 bit
        assert rate == 16000
    v.until("document.getElementById('mixed').textContent === ', strength 40 %'")


def test_switching_is_a_cross_fade_on_one_playhead(visit):
    """Rendered sample by sample: noisy is a sine, enhanced the same at half the level, switched in the middle."""
    v = visit()
    render = """async () => {
      const rate = 16000, context = new OfflineAudioContext(1, rate, rate);
      const buffers = [1, 0.5].map((level) => {
        const buffer = new AudioBuffer({length: rate, sampleRate: rate});
        const sine = Float32Array.from({length: rate}, (_, n) => level * Math.sin(2 * Math.PI * 100 * n / rate));
        buffer.copyToChannel(sine, 0);
        return buffer;
      });
      const state = {enhanced: false, strength: 1}, mixer = new dccrn.Mixer(context, buffers, state, null);
      mixer.start(0, 0);
      context.suspend(0.504).then(() => { mixer.set({...state, enhanced: true}); context.resume(); });
      globalThis.rendered = (await context.startRendering()).getChannelData(0);
    }"""
    v.page.evaluate(render)
    y = v.samples("rendered")
    sine = np.sin(2 * np.pi * 100 * np.arange(16000) / 16000)
    np.testing.assert_allclose(y[:8000], sine[:8000], atol=1e-4)
    np.testing.assert_allclose(y[8800:], 0.5 * sine[8800:], atol=1e-4)  # the same playhead
    assert np.abs(np.diff(y)).max() < 1.1 * np.abs(np.diff(sine)).max()  # no jump


def test_playing_pausing_and_seeking(visit, tmp_path: Path):
    v = visit()
    soundfile.write(tmp_path / "clip.wav", clip(seconds=0.2), 16000)
    v.choose(tmp_path / "clip.wav")
    minute = "Array.from({length: 2}, () => [new Float32Array(60 * 16000)])"
    v.page.evaluate(f"dccrn.player.load(...{minute}, 16000)")  # longer than a busy machine needs to click
    v.page.click("#play")
    v.until("dccrn.player.position > 0.2 && document.getElementById('play').textContent === 'Pause'")
    v.page.check("[name=version][value=noisy]", force=True)
    assert v.page.evaluate("dccrn.player.playing && !dccrn.state.enhanced")
    v.page.click("#play")
    assert v.page.inner_text("#play") == "Play"
    stopped = v.page.evaluate("dccrn.player.position")
    v.page.wait_for_timeout(200)
    assert v.page.evaluate("dccrn.player.position") == stopped > 0.2
    box = v.page.locator("#after").bounding_box()
    v.page.locator("#after").click(position={"x": box["width"] / 2, "y": 40})
    assert v.page.evaluate("dccrn.player.position") == pytest.approx(30, abs=1.5)


def test_keyboard_reaches_and_moves_everything(visit, tmp_path: Path):
    v = visit(**DESKTOP)
    soundfile.write(tmp_path / "clip.wav", clip(seconds=0.3), 16000)
    v.choose(tmp_path / "clip.wav")
    unlabelled = """() => [...document.querySelectorAll("input, button, canvas, progress")].filter((e) =>
      !(e.labels?.length || e.textContent.trim() || e.ariaLabel || e.getAttribute("aria-labelledby"))).map((e) => e.id)"""
    assert v.page.evaluate(unlabelled) == []
    reached, marked = [], []
    v.page.evaluate("document.body.focus(); document.activeElement.blur(); scrollTo(0, 0)")
    for _ in range(20):
        v.page.keyboard.press("Tab")
        name = "(e) => e === document.body ? null : e.id || e.name || e.textContent"
        here = v.page.evaluate(f"({name})(document.activeElement)")
        if here is None:  # past the last element
            continue
        if here in reached:
            break
        reached.append(here)
        outline = """() => { const seen = (x) => x && getComputedStyle(x).outlineStyle !== "none";
          const e = document.activeElement; return Boolean(seen(e) || seen(e.nextElementSibling)); }"""
        marked.append(v.page.evaluate(outline))
    assert {"file", "microphone", "play", "version", "strength", "download", "position"} <= set(reached)
    assert all(marked), dict(zip(reached, marked, strict=True))
    v.page.focus("#strength")
    for _ in range(4):
        v.page.keyboard.press("ArrowLeft")
    assert v.page.inner_text("#strength-value") == "80 %" and v.page.evaluate("dccrn.state.strength") == 0.8
    v.page.focus("[name=version]:checked")
    v.page.keyboard.press("ArrowLeft")
    assert v.page.evaluate("dccrn.state.enhanced") is False
    v.page.focus("#play")
    v.page.keyboard.press("Space")
    v.until("dccrn.player.playing || dccrn.player.position > 0.2")  # it may have ended already


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_fits_and_can_be_read(visit, tmp_path: Path, screenshots: Path, scheme: str):
    v = visit(color_scheme=scheme, **PHONE)
    v.page.screenshot(path=screenshots / f"demo_phone_{scheme}_start.png", full_page=True)
    soundfile.write(tmp_path / "a_recording_with_quite_a_long_name.wav", clip(seconds=0.6), 16000)
    v.choose(tmp_path / "a_recording_with_quite_a_long_name.wav")
    v.page.wait_for_timeout(500)
    v.page.screenshot(path=screenshots / f"demo_phone_{scheme}_result.png", full_page=True)
    assert v.page.evaluate("document.documentElement.scrollWidth") <= 390
    wider = """() => [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > 391)
      .map((e) => e.id || e.tagName)"""
    assert v.page.evaluate(wider) == []
    small = """() => [...document.querySelectorAll("button, #drop label, .switch label, input[type=range]")].filter((e) =>
      e.offsetParent && e.getBoundingClientRect().height < 43.5).map((e) => e.id || e.textContent)"""
    assert v.page.evaluate(small) == []  # large enough for a thumb
    assert least_contrast(v) >= 4.5


def least_contrast(v: Visit) -> float:
    """Smallest contrast ratio (WCAG) of a text and its background."""
    pairs = """() => { const out = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (walk.nextNode()) {
        let e = walk.currentNode.parentElement;
        if (!walk.currentNode.textContent.trim() || !e.offsetParent || e.matches("script")) continue;
        const ink = getComputedStyle(e).color;
        while (e && getComputedStyle(e).backgroundColor === "rgba(0, 0, 0, 0)") e = e.parentElement;
        out.push([ink, getComputedStyle(e ?? document.body).backgroundColor]);
      }
      return out; }"""

    def luminance(colour: str) -> float:
        parts = np.array([float(c) for c in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    ratios = []
    for colours in v.page.evaluate(pairs):
        low, high = sorted(map(luminance, colours))
        ratios.append((high + 0.05) / (low + 0.05))
    assert len(ratios) > 20
    return min(ratios)


def test_what_is_loaded_is_under_15_megabytes(demo: Path):
    sizes = {path.name: path.stat().st_size for path in demo.iterdir()}
    assert set(sizes) == {"index.html", "style.css", "page.js", "engine.js", "clips.js", "licences.txt"}
    assert 5e6 < sum(sizes.values()) < 15e6
    assert sum(size for name, size in sizes.items() if name != "engine.js") < 0.4e6  # until something is chosen
