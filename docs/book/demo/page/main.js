// The page: choose a sound, enhance it, compare.

import * as denoiser from "../denoiser/index.js";
import { decode, download, loadScript, missing, monoOf, newWorker, Told, workletUrl, LIMIT_SECONDS } from "./files.js";
import { Player } from "./player.js";
import { DB_RANGE, gradient, LiveSpectrogram, Spectrogram } from "./spectrogram.js";

const { Cancelled, Denoiser, encodeWav, Live, mix } = denoiser;
const $ = (id) => document.getElementById(id);
const COLUMNS = 1000;
const LIVE_LIMIT_SECONDS = 5 * 60;
const LIVE_REFERENCE = 300;  // power of a loud bin of speech at usual levels: 0 dB of the live pictures
const FRAME_MS = 60;
const MICROPHONE = "microphone";

const before = new Spectrogram($("before")), after = new Spectrogram($("after"));
const player = new Player(playing);
const state = { enhanced: true, strength: 1 };
let engine, job, live, sound;

// ---- messages

function show(id, text) {
  $(id).textContent = text ?? "";
  $(id).hidden = !text;
}

function working(text, fraction, cancellable = false) {
  $("work").hidden = text === null;
  $("status").textContent = text ?? "";
  if (fraction === undefined) $("progress").removeAttribute("value");
  else $("progress").value = fraction;
  $("cancel").hidden = !cancellable;
}

function complain(error) {
  if (error instanceof Cancelled) return;
  if (!(error instanceof Told)) console.error(error);
  show("problem", error instanceof Told ? error.message : `Something went wrong: ${error.message}`);
}

function busy(on) {
  for (const control of document.querySelectorAll("#file, #microphone, #clips button")) control.disabled = on;
}

/** Run one thing at a time; errors are shown. */
async function run(action) {
  if (job || live) {
    show("problem", "Something is running: stop or cancel it first.");
    return;
  }
  job = new AbortController();
  busy(true);
  show("problem", null);
  try {
    await action(job.signal);
  } catch (error) {
    complain(error);
  }
  working(null);
  job = null;
  busy(Boolean(live));
}

function numbers(rows) {
  $("numbers").replaceChildren(
    ...Object.entries(rows).map(([name, value]) => {
      const box = document.createElement("div"), term = document.createElement("dt"), text = document.createElement("dd");
      term.textContent = name;
      text.textContent = value;
      box.append(term, text);
      return box;
    }),
  );
}

const digits = (x) => (x < 10 ? x.toPrecision(2) : x.toFixed(0));
const speed = (rtf) => ({ "Real-time factor (below 1 keeps up)": rtf.toFixed(2) });
const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

// ---- the network

function ready() {
  engine ??= (async () => {
    working("Loading the network, once…");
    const files = await loadScript("engine.js", "denoiserFiles");
    const loaded = await Denoiser.create(newWorker(), files);
    globalThis.denoiserFiles = null;
    return loaded;
  })();
  engine.catch(() => (engine = null));  // so that the next try loads again; the caller reports
  return engine;
}

// ---- whole recordings

/** @param title what the page calls it; name is that of its download */
async function open(file, name, title = name) {
  await run(async (signal) => {
    player.stop();
    working(`Reading ${title}…`);
    let { channels, sampleRate } = await decode(file, name);
    if ($("mono").checked) channels = [monoOf(channels)];
    const network = await ready();
    const seconds = channels[0].length / sampleRate, start = performance.now();
    const onProgress = (fraction) => {
      const left = ((performance.now() - start) / 1000) * (1 / fraction - 1);
      const remaining = fraction > 0.02 ? `, ${digits(left)} s left` : "";
      working(`Enhancing ${title}: ${Math.round(100 * fraction)} %${remaining}`, fraction, true);
    };
    onProgress(0);
    const done = await network.enhance(channels, sampleRate, { onProgress, signal });
    const rtf = done.seconds / (seconds * channels.length);
    await present({ name, title, noisy: channels, enhanced: done.channels, sampleRate }, {
      Length: clock(seconds),
      Channels: channels.length,
      "Sampling rate": `${sampleRate / 1000} kHz`,
      "Computing time": `${digits(done.seconds)} s`,
      ...speed(rtf),
    });
    sound.rtf = rtf;
  });
}

/** Show a finished pair and make it playable. */
async function present(result, rows) {
  sound = result;
  player.load(sound.noisy, sound.enhanced, sound.sampleRate);
  $("stage-title").textContent = `Before and after: ${sound.title}`;
  stage(false);
  show("notice", null);
  await pictures();
  numbers(rows);
  $("position").max = player.seconds;
  moved();
  $("stage").scrollIntoView({ block: "nearest", behavior: "smooth" });
}

let painting = Promise.resolve();  // of pictures that nobody waits for

async function pictures() {
  const { noisy, enhanced, sampleRate } = sound, network = await ready(), seconds = noisy[0].length / sampleRate;
  const first = await network.picture(monoOf(noisy), sampleRate, COLUMNS);
  before.show(first, seconds);
  after.show(await network.picture(monoOf(mix(noisy, enhanced, state.strength)), sampleRate, COLUMNS, first.reference), seconds);
  $("mixed").textContent = state.strength < 1 ? `, strength ${Math.round(100 * state.strength)} %` : "";
}

/** Controls of a recording or of a live stream. */
function stage(isLive) {
  $("stage").hidden = false;
  for (const id of ["play", "download", "position-label"]) $(id).hidden = isLive;
  $("finish").hidden = !isLive;
  $("scale-high").textContent = `${DB_RANGE[1]} dB, ${isLive ? "a loud voice" : "the loudest of the noisy sound"}`;
}

function playing() {
  $("play").textContent = player.playing ? "Pause" : "Play";
  moved();
}

function moved() {
  const { position, seconds } = player;
  $("position").value = position;
  $("position-value").textContent = `${clock(position)} of ${clock(seconds)}`;
  before.playhead = after.playhead = seconds ? position / seconds : 0;
  before.draw();
  after.draw();
}

let drawn = 0;

/** Pictures that move, drawn a few times per second: the computing needs the machine more. */
function animate(now) {
  requestAnimationFrame(animate);
  if (now - drawn < FRAME_MS || !(player.playing || live?.dirty)) return;
  drawn = now;
  if (player.playing) moved();
  if (live?.dirty) {
    live.dirty = false;
    before.draw();
    after.draw();
  }
}

// ---- the microphone

function microphoneError(error) {
  if (error.name === "NotAllowedError") return new Told("The microphone was not allowed. Allow it for this page in the browser's address bar and try again.");
  if (error.name === "NotFoundError") return new Told("No microphone was found. Plug one in and try again.");
  if (error.name === "NotReadableError") return new Told("The microphone is used by another program. Close that and try again.");
  return error;
}

async function listen() {
  await run(async () => {
    if (!navigator.mediaDevices || !globalThis.AudioWorkletNode) {
      throw new Told("This browser gives no microphone to this page. It does so on https, on localhost and, in some browsers, for files opened from disk.");
    }
    player.stop();
    const network = await ready();
    working("Waiting for the microphone…");
    await painting;  // it would replace the live pictures, and keep the worker from the microphone
    const take = { noisy: [], enhanced: [], late: 0, blocks: 0, seconds: 0, rtf: [] };
    const running = { take, dirty: false };
    const onPiece = (piece) => {
      take.noisy.push(piece.dry);
      take.enhanced.push(piece.wet);
      take.late += piece.late;
      take.blocks += piece.blocks;
      take.seconds += piece.dry.length / running.stream.sampleRate;
      running.before.push(piece.dry, LIVE_REFERENCE);
      running.after.push(piece.wet, LIVE_REFERENCE);
      running.dirty = true;
      if (take.seconds >= LIVE_LIMIT_SECONDS) finish().catch(complain);
    };
    const onState = ({ overload, failure, rtf }) => {
      if (failure) {
        show("notice", `The network stopped (${failure}); you hear the microphone unprocessed. Stop and start again.`);
      }
      running.rtf = rtf ?? running.rtf;
      if (rtf !== undefined && !overload) take.rtf.push(rtf);
      if (overload) {
        show("notice", "This machine is too slow for live denoising at the moment: you hear the microphone unprocessed, without gaps. Close other programs and start again, or stop and choose a file: files need no real time.");
      }
      liveNumbers();
    };
    show("notice", null);  // before the start: a very slow machine reports while it is still starting
    try {
      running.stream = await Live.start(network, workletUrl(), { listen: $("listen").checked, onPiece, onState, ...globalThis.dccrn.liveOptions });
    } catch (error) {
      throw microphoneError(error);
    }
    running.stream.set({ strength: state.enhanced ? state.strength : 0 });
    running.stream.stream.getTracks()[0].onended = () => finish().catch(complain);  // unplugged
    for (const [name, view] of [["before", before], ["after", after]]) {
      view.playhead = null;
      running[name] = new LiveSpectrogram(view, running.stream.sampleRate);
    }
    live = running;
    live.stream.listen($("listen").checked);  // it may have been switched while the browser asked
    $("stage-title").textContent = "Live from the microphone";
    $("mixed").textContent = "";
    stage(true);
    liveNumbers();
    before.draw();
    after.draw();
    $("stage").scrollIntoView({ block: "nearest", behavior: "smooth" });
  });
}

function liveNumbers() {
  if (!live) return;
  const { take, stream, rtf } = live;
  numbers({
    "Delay, microphone to ear": `${Math.round(1000 * stream.latencySeconds)} ms`,
    "Of that, the network": `${((1000 * stream.denoiser.latencySamples) / stream.denoiser.sampleRate).toFixed(1)} ms`,
    ...(rtf === undefined ? {} : speed(rtf)),
    Length: clock(take.seconds),
    "Late, passed through": `${take.blocks ? ((100 * take.late) / take.blocks).toFixed(1) : 0} %`,
  });
}

async function finish() {
  if (!live || live.ending) return;
  live.ending = true;  // until the microphone is given back nothing else begins
  const { take, stream } = live, rows = { Length: clock(take.seconds) };
  const rtf = take.rtf.length ? take.rtf.reduce((a, b) => a + b, 0) / take.rtf.length : live.rtf;
  try {
    await stream.stop();
  } finally {
    live = null;
  }
  if (rtf !== undefined) Object.assign(rows, speed(rtf));
  rows["Delay, microphone to ear"] = `${Math.round(1000 * stream.delaySeconds)} ms`;
  rows["Late, passed through"] = `${take.blocks ? ((100 * take.late) / take.blocks).toFixed(1) : 0} %`;
  const join = (pieces) => {
    const out = new Float32Array(pieces.reduce((sum, p) => sum + p.length, 0));
    pieces.reduce((at, p) => (out.set(p, at), at + p.length), 0);
    return out;
  };
  busy(false);
  if (!take.noisy.length) {
    $("stage").hidden = true;
    return;
  }
  await run(async () => {
    await present({ name: MICROPHONE, title: MICROPHONE, noisy: [join(take.noisy)], enhanced: [join(take.enhanced)], sampleRate: stream.sampleRate, take }, rows);
  });
}

// ---- controls

function changed() {
  player.set(state);
  live?.stream.set({ strength: state.enhanced ? state.strength : 0 });
}

for (const radio of document.querySelectorAll("[name=version]")) {
  radio.addEventListener("change", () => {
    state.enhanced = radio.value === "enhanced";
    changed();
  });
}
$("strength").addEventListener("input", (event) => {
  state.strength = event.target.value / 100;
  $("strength-value").textContent = `${event.target.value} %`;
  changed();
});
$("strength").addEventListener("change", () => {
  if (sound && !live) painting = painting.then(pictures).catch(complain);
});
$("play").addEventListener("click", () => (player.playing ? player.pause() : player.play()));
$("position").addEventListener("input", (event) => player.seek(Number(event.target.value)).then(moved));
for (const view of [before, after]) {
  view.canvas.addEventListener("click", (event) => {
    if (sound && !live) player.seek(view.shareAt(event.clientX) * player.seconds).then(moved);
  });
}
$("download").addEventListener("click", () => {
  const name = `${sound.name.replace(/\.[^.]+$/, "")}_enhanced.wav`;
  download(encodeWav(mix(sound.noisy, sound.enhanced, state.strength), sound.sampleRate), name);
});
$("cancel").addEventListener("click", () => job?.abort());
$("microphone").addEventListener("click", listen);
$("finish").addEventListener("click", () => finish().catch(complain));
$("listen").addEventListener("change", (event) => live?.stream.listen(event.target.checked));
$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = "";  // so that the same file can be chosen again
  if (file) open(file, file.name);
});

// dropping anywhere on the page counts: a miss would make the browser leave it
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type === "dragenter" || type === "dragover");
    if (type !== "drop") return;
    const [file] = event.dataTransfer.files;
    if (file) open(file, file.name);
    else show("problem", "What was dropped is not a file.");
  });
}

async function clips() {
  const list = await loadScript("clips.js", "denoiserClips");
  $("clips").replaceChildren(
    ...list.map(({ name, label, data }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.addEventListener("click", () => {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        open(new Blob([bytes]), name, label);
      });
      return button;
    }),
  );
}

$("scale-bar").style.background = gradient;
$("scale-low").textContent = `${DB_RANGE[0]} dB`;
const lack = missing();
if (lack) {
  show("problem", lack);
  busy(true);
} else {
  clips().catch(complain);
  requestAnimationFrame(animate);
}

// for the console and for tests
globalThis.dccrn = { ...denoiser, liveOptions: {}, open, player, state, ready, LIMIT_SECONDS, get sound() { return sound; }, get live() { return live; } };
