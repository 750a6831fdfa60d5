"""A recorder for the browser: microphone -> 16 kHz WAV -> the kernel, through an ordinary text widget.

The button's JavaScript records with MediaRecorder, decodes what it made with the browser's own decoder (browsers
record in formats that libsndfile does not read), writes 16-bit WAV, and puts it in base64 into a hidden text field
that ipywidgets keeps in step with Python. No network, no extension. Browsers give the microphone to pages from
localhost or https only; the button says so where they refuse.
"""

from __future__ import annotations

import base64
import binascii
import html
import itertools
from collections.abc import Callable

import ipywidgets as widgets

from dccrn_lib.runtime.errors import AudioError

MAX_RECORDING_SECONDS = 20
FIELD_CLASS = "dccrn-recording"
_count = itertools.count(1)

_SCRIPT = """
const say = (text) => { button.textContent = text; };
if (button.recorder) { button.recorder.stop(); return; }
if (!navigator.mediaDevices || !window.MediaRecorder) { say("No microphone on this page: upload a file"); return; }
const toWav = (samples, rate) => {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, s) => [...s].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((v, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, v)) * 32767, true));
  return new Uint8Array(view.buffer);
};
const hand = (bytes) => {
  let binary = "";
  for (let i = 0; i < bytes.length; i += 8192) binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
  const field = document.querySelector(".FIELD textarea");
  field.value = btoa(binary);
  for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, {bubbles: true}));
};
const plain = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
navigator.mediaDevices.getUserMedia({audio: plain}).then((stream) => {
  const pieces = [], recorder = new MediaRecorder(stream);
  button.recorder = recorder;
  recorder.ondataavailable = (event) => pieces.push(event.data);
  recorder.onstop = async () => {
    stream.getTracks().forEach((track) => track.stop());
    button.recorder = null;
    try {
      const context = new AudioContext({sampleRate: 16000});
      const audio = await context.decodeAudioData(await new Blob(pieces).arrayBuffer());
      hand(toWav(audio.getChannelData(0), 16000));
      context.close();
      say("Record again");
    } catch (error) { say("Recording failed (" + error.name + "): upload a file"); }
  };
  recorder.start();
  say("Stop (at most SECONDS s)");
  setTimeout(() => { if (recorder.state === "recording") recorder.stop(); }, 1000 * SECONDS);
}).catch((error) => say("No microphone (" + error.name + "): upload a file"));
"""


def decode_recording(text: str) -> bytes:
    """Base64 from the text field -> bytes of a WAV file.

    Raises:
        AudioError: not base64, or not WAV.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise AudioError("the recording arrived damaged; record again") from None
    if data[:4] != b"RIFF":
        raise AudioError("the recording is not a WAV file; record again")
    return data


def recorder(on_recording: Callable[[str], None]) -> widgets.Widget:
    """A record button.

    Args:
        on_recording: called with the base64 text of a 16 kHz mono WAV file after each recording; pass it to
            :func:`decode_recording`.
    """
    name = f"{FIELD_CLASS}-{next(_count)}"  # each button finds its own field on a page with several
    field = widgets.Textarea(continuous_update=False)
    field.add_class(name)
    field.layout = widgets.Layout(width="1px", height="1px", visibility="hidden", margin="0")
    script = _SCRIPT.replace("FIELD", name).replace("SECONDS", str(MAX_RECORDING_SECONDS))
    run = "new Function('button', this.dataset.script)(this)"
    button = widgets.HTML(
        f'<button class="jupyter-button widget-button" data-script="{html.escape(script)}" onclick="{run}">'
        "Record</button>"
    )

    def arrived(change: dict) -> None:
        if change["new"]:
            on_recording(change["new"])

    field.observe(arrived, names="value")
    return widgets.HBox([button, field], layout=widgets.Layout(overflow="hidden"))
