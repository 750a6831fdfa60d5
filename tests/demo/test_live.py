"""The live path: a microphone that is fed from a file, the worklet, the worker and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dccrn_lib.audio.resampling import resample
from dccrn_lib.enhancement.stream import StreamingEnhancer
from dccrn_lib.losses import si_snr_db
from dccrn_lib.networks.weights import load_model
from tests.demo.demo_page import Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
RATE = 48000


def listen(v: Visit, seconds: float, **options: float) -> None:
    """Start the microphone and let it run until so much was played."""
    v.page.evaluate("(options) => { dccrn.liveOptions = options; }", options)
    v.page.click("#microphone")
    v.until(f"dccrn.live?.take.seconds > {seconds}")


def stop(v: Visit) -> tuple[np.ndarray, np.ndarray]:
    """Stop; what was due (noisy) and what was played (enhanced), (sample,)."""
    v.page.click("#finish")
    v.until("dccrn.sound?.name === 'microphone' && document.getElementById('work').hidden")
    assert v.page.evaluate("dccrn.sound.sampleRate") == RATE
    return v.channels("noisy")[0], v.channels("enhanced")[0]


def ratio_db(x: np.ndarray, reference: np.ndarray) -> float:
    return si_snr_db(torch.from_numpy(x.copy())[None], torch.from_numpy(reference.copy())[None]).item()


@pytest.mark.parametrize("form", ["file", "http"])
def test_what_is_played_is_what_python_makes_of_the_microphone(visit, microphone, screenshots, form: str):
    """With 12 s of margin, so that a busy machine keeps up with the first seconds, too."""
    v = visit(form, **DESKTOP)
    listen(v, 1.5, marginSeconds=12, backlogSeconds=60)
    late, rtf = v.page.evaluate("[dccrn.live.take.late, dccrn.live.take.rtf]")
    print(f"\n{form}: real-time factor in the browser, live: {np.mean(rtf):.2f}; late blocks: {late}")
    v.page.screenshot(path=screenshots / f"demo_live_{form}.png", full_page=True)
    noisy, played = stop(v)
    if late:
        pytest.skip(f"this machine is too busy to keep up: real-time factor {np.mean(rtf):.2f}")
    noisy, played = noisy[: int(1.5 * RATE)], played[: int(1.5 * RATE)]
    assert np.sqrt(np.mean(noisy**2)) > 0.01  # the microphone heard the clip
    stream = StreamingEnhancer(load_model("distil_dccrn"), level_control=True)
    x = resample(noisy, RATE, 16000)
    late_output = np.concatenate([stream.push(x), stream.flush()])
    expected = resample(late_output[stream.latency_samples :], 16000, RATE)
    # the worklet fades in over 5 ms, and the recording was cut at its end, the microphone was not
    middle = slice(int(0.01 * RATE), int(1.3 * RATE))
    assert ratio_db(played[middle], expected[middle]) > 60
    np.testing.assert_allclose(played[middle], expected[middle], atol=1e-3)
    assert ratio_db(played[middle], noisy[middle]) < 20  # it was denoised


def test_a_machine_that_is_too_slow_gives_the_microphone_and_a_message(visit):
    """With no backlog allowed every machine is too slow: what is played then is the microphone, without a gap."""
    v = visit(**DESKTOP)
    listen(v, 0.5, backlogSeconds=-1)
    v.until("!document.getElementById('notice').hidden")
    assert "too slow for live denoising" in v.page.inner_text("#notice")
    v.until("/Real-time factor/.test(document.getElementById('numbers').textContent)")
    v.until("dccrn.live.take.seconds > 1.5")
    noisy, played = stop(v)
    np.testing.assert_array_equal(played, noisy)
    assert np.sqrt(np.mean(noisy**2)) > 0.01


def test_hearing_the_noisy_side_changes_no_recording(visit):
    """The switch is for the ear; what is compared afterwards is still noisy against enhanced."""
    v = visit(**DESKTOP)
    v.page.evaluate("document.querySelector('[name=version][value=noisy]').click()")
    listen(v, 0.5, marginSeconds=12, backlogSeconds=60)
    if v.page.evaluate("dccrn.live.take.late"):
        pytest.skip("this machine is too busy to keep up")
    noisy, played = stop(v)
    start = slice(0, RATE // 2)
    assert ratio_db(played[start], noisy[start]) < 20


def test_delay_and_real_time_factor_are_shown(visit):
    v = visit(**DESKTOP)
    listen(v, 0.3, marginSeconds=1)
    v.until("/Real-time factor/.test(document.getElementById('numbers').textContent)")
    text = v.page.inner_text("#numbers")
    shown = int(text.split("microphone to ear")[1].split("ms")[0])
    assert "62.4 ms" in text  # of the network, as docs/latency.md has it
    assert 1000 * v.page.evaluate("dccrn.live.stream.delaySeconds") - 1 <= shown < 1600
    # 1000 ms of margin, 10 ms of a piece, 62.4 ms of the network, 8.6 ms of two resamplers
    assert v.page.evaluate("dccrn.live.stream.delaySeconds") == pytest.approx(1.081, abs=0.002)
    stop(v)


def test_leaving_the_microphone_frees_it_and_files_work_again(visit, tmp_path):
    v = visit()
    listen(v, 0.2)
    tracks = v.page.evaluate_handle("dccrn.live.stream.stream.getTracks()")
    assert v.page.evaluate("(t) => t.map((x) => x.readyState)", tracks) == ["live"]
    stop(v)
    assert v.page.evaluate("(t) => t.map((x) => x.readyState)", tracks) == ["ended"]
    assert v.page.evaluate("dccrn.live === undefined || dccrn.live === null")
    v.page.click("#clips button >> nth=1")
    v.until("dccrn.sound?.name === 'babble_5db_en' && dccrn.sound.rtf > 0")


def test_a_refused_microphone_gets_a_clear_message(visit):
    v = visit("http")
    refuse = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); }; 0"
    v.page.evaluate(refuse)
    v.page.click("#microphone")
    v.until("!document.getElementById('problem').hidden")
    assert "was not allowed" in v.page.inner_text("#problem")
    assert v.page.is_enabled("#microphone")


def test_hearing_the_microphone_may_be_switched_while_the_browser_asks(visit):
    v = visit()
    ask = """() => { const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      const answer = new Promise((go) => { globalThis.allow = go; });
      navigator.mediaDevices.getUserMedia = async (c) => { globalThis.asked = true; await answer; return ask(c); }; }"""
    v.page.evaluate(ask)
    v.page.click("summary")
    v.page.check("#listen")
    v.page.click("#microphone")
    v.until("globalThis.asked")
    v.page.uncheck("#listen")
    v.page.evaluate("allow(); 0")
    v.until("dccrn.live?.take.seconds > 0.3")
    assert v.page.evaluate("dccrn.live.stream.volume.gain.value") < 0.01  # else the loudspeaker howls
    stop(v)


def test_a_file_that_comes_while_the_microphone_is_given_back_costs_no_take(visit):
    v = visit()
    listen(v, 0.3)
    drop = """() => { const dataTransfer = new DataTransfer();
      const bytes = Uint8Array.from(atob(denoiserClips[0].data), (c) => c.charCodeAt(0));
      dataTransfer.items.add(new File([bytes], "dropped.ogg"));
      document.getElementById("finish").click();
      document.body.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer})); }"""
    v.page.evaluate(drop)
    v.until("dccrn.sound?.name === 'microphone' && document.getElementById('problem').hidden", seconds=60)
