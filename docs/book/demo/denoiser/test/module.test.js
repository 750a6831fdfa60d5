import assert from "node:assert/strict";
import { test } from "node:test";

import { sniffSampleRate } from "../container.js";
import { LevelControl, measureLevel, OffsetControl } from "../level.js";
import { LiveStream } from "../live-stream.js";
import { readMetadata } from "../metadata.js";
import { gainsFor, mix } from "../mixer.js";
import { picture } from "../picture.js";
import { resample, StreamingResampler } from "../resample.js";
import { FFT, STFT } from "../stft.js";
import { StreamingEnhancer } from "../streaming.js";
import { encodeWav } from "../wav.js";

/** Noise in [-0.5, 0.5), the same each time. */
function noise(length, seed = 1) {
  return Float32Array.from({ length }, () => (seed = (seed * 16807) % 2147483647) / 2147483647 - 0.5);
}

const distance = (a, b) => {
  assert.equal(a.length, b.length);
  return a.reduce((most, x, n) => Math.max(most, Math.abs(x - b[n])), 0);
};

test("the FFT equals the sum that defines it", () => {
  const size = 16, x = noise(size), y = noise(size, 5);
  const real = Float64Array.from(x), imag = Float64Array.from(y);
  new FFT(size).transform(real, imag);
  for (let k = 0; k < size; k++) {
    let re = 0, im = 0;
    for (let n = 0; n < size; n++) {
      const [c, s] = [Math.cos((2 * Math.PI * k * n) / size), Math.sin((2 * Math.PI * k * n) / size)];
      re += x[n] * c + y[n] * s;
      im += y[n] * c - x[n] * s;
    }
    assert.ok(Math.hypot(real[k] - re, imag[k] - im) < 1e-12);
  }
  assert.throws(() => new FFT(400), /power of two/);
});

test("the STFT goes there and back at any length", () => {
  for (const sizes of [{}, { windowLength: 320, hopLength: 160, window: "sqrt_hann" }, { windowLength: 300, hopLength: 70 }]) {
    const stft = new STFT(sizes);
    for (const length of [1, 99, 100, 101, 1234]) {
      const x = noise(length), spectrum = stft.forward(x);
      assert.equal(spectrum.frames, stft.frameCount(length));
      assert.ok(distance(stft.inverse(spectrum, length), x) < 1e-6);
    }
  }
  assert.throws(() => new STFT({ hopLength: 500 }), /1 <= hop <= window <= FFT/);
  assert.throws(() => new STFT({ window: "hamming" }), /known: hann/);
});

test("a resampler gives in blocks what it gives at once, and a tone stays a tone", () => {
  for (const [from, to] of [[48000, 16000], [16000, 44100], [44100, 16000], [8000, 16000], [16000, 16000]]) {
    const x = Float32Array.from({ length: from / 5 }, (_, n) => 0.5 * Math.sin((2 * Math.PI * 1000 * n) / from));
    const blocks = new StreamingResampler(from, to), whole = resample(x, from, to);
    for (let round = 0; round < 2; round++) {
      const pieces = [[0, 0], [0, 1], [1, 700], [700, x.length]].map(([a, b]) => blocks.push(x.slice(a, b)));
      assert.ok(distance([...pieces.flatMap((p) => [...p]), ...blocks.flush()], whole) < 1e-6);
    }
    for (let n = Math.floor(to / 20); n < to / 10; n++) {
      assert.ok(Math.abs(whole[n] - 0.5 * Math.sin((2 * Math.PI * 1000 * n) / to)) < 1e-4);
    }
  }
  assert.throws(() => resample(noise(9), 44100.5, 16000), /whole number of Hz/);
});

test("the filters of rates without a common divisor stay small", () => {
  for (const [from, to] of [[22254, 16000], [16000, 22254], [767999, 16000]]) {
    const x = noise(Math.round(from / 10)), before = process.memoryUsage().arrayBuffers;
    assert.equal(resample(x, from, to).length, Math.ceil((x.length * to) / from));
    assert.ok(process.memoryUsage().arrayBuffers - before < 20e6);
  }
});

test("levels: -60 dBFS comes to -23, usual live levels stay", () => {
  const quiet = Float32Array.from({ length: 16000 }, (_, n) => 0.1 + 1e-3 * (-1) ** n);
  const { offset, scale } = measureLevel(quiet, 16000);
  assert.ok(Math.abs(offset - 0.1) < 1e-6);
  assert.ok(Math.abs(20 * Math.log10(1e-3 / scale) + 23) < 1e-2);
  assert.equal(measureLevel(new Float32Array(100), 16000).scale, 1);
  const far = measureLevel(Float32Array.from({ length: 96000 }, (_, n) => (n < 48000 ? 0.1 : 0.001) * (-1) ** n), 16000);
  assert.ok(Math.abs(20 * Math.log10(far.scaleAt(40000) / far.scaleAt(80000)) - 22) < 1e-3);
  const control = new LevelControl(0.01);
  assert.ok(Math.abs(20 * Math.log10(control.gain(1e-6)) - 43) < 1e-6);
  assert.equal(control.gain(0.05), 1);
  const follower = new OffsetControl(0.00625);
  assert.equal(follower.follow(0), 0);
  for (let k = 0; k < 200; k++) follower.follow(0.1);
  assert.ok(Math.abs(follower.latest - 0.1) < 0.01);
});

test("a file's own sampling rate is read from its head", () => {
  for (const rate of [8000, 16000, 44100]) assert.equal(sniffSampleRate(encodeWav([noise(100)], rate)), rate);
  const ogg = new Uint8Array(100);
  ogg.set(new TextEncoder().encode("OggS"));
  ogg[26] = 1;
  ogg.set([1, ...new TextEncoder().encode("vorbis")], 28);
  new DataView(ogg.buffer).setUint32(40, 22050, true);
  assert.equal(sniffSampleRate(ogg), 22050);
  const flac = new Uint8Array(100);
  flac.set(new TextEncoder().encode("fLaC"));
  new DataView(flac.buffer).setUint32(18, 96000 << 12);
  assert.equal(sniffSampleRate(flac), 96000);
  const mp3 = new Uint8Array(100);
  mp3.set([0xff, 0xfb, 0x90, 0]);
  assert.equal(sniffSampleRate(mp3), 44100);
  assert.equal(sniffSampleRate(new TextEncoder().encode("not a sound at all ".repeat(9))), null);
});

test("WAV: 16 bit is lowered to fit, float keeps every value", () => {
  const loud = Float32Array.of(0.5, -2, 1), view = new DataView(encodeWav([loud], 16000).buffer);
  assert.deepEqual([0, 1, 2].map((n) => view.getInt16(44 + 2 * n, true)), [8192, -32767, 16384]);
  const exact = new DataView(encodeWav([loud], 16000, "float").buffer);
  assert.deepEqual([0, 1, 2].map((n) => exact.getFloat32(44 + 4 * n, true)), [0.5, -2, 1]);
});

test("metadata are read from the bytes of an ONNX file, other fields are passed over", () => {
  const text = (s) => [...new TextEncoder().encode(s)];
  const field = (number, bytes) => [(number << 3) | 2, bytes.length, ...bytes];
  const entry = (key, value) => field(14, [...field(1, text(key)), ...field(2, text(value))]);
  const file = [8, 150, 1, ...field(2, text("pytorch")), ...entry("kind", "streaming"), ...entry("hop_length", "100")];
  assert.deepEqual(readMetadata(Uint8Array.from(file)), { kind: "streaming", hop_length: "100" });
  assert.throws(() => readMetadata(Uint8Array.of(7, 1, 2)), /not an ONNX file/);
});

test("strength mixes sample by sample, and the gains say the same", () => {
  const noisy = [Float32Array.of(1, 0)], enhanced = [Float32Array.of(0, 1)];
  assert.deepEqual([...mix(noisy, enhanced, 0.25)[0]], [0.75, 0.25]);
  assert.deepEqual(gainsFor({ enhanced: true, strength: 0.25 }), [0.75, 0.25]);
  assert.deepEqual(gainsFor({ enhanced: false, strength: 0.25 }), [1, 0]);
});

test("a picture shows a tone where it is, at 0 dB", () => {
  const x = Float32Array.from({ length: 16000 }, (_, n) => 0.1 * Math.sin((2 * Math.PI * 2000 * n) / 16000));
  const { pixels, columns, rows } = picture(x, 16000, 50);
  assert.deepEqual([columns, rows, pixels.length], [50, 257, 50 * 257]);
  const middle = pixels.subarray(25 * rows, 26 * rows), loudest = middle.indexOf(Math.max(...middle));
  assert.equal(loudest, 64);  // 2000 Hz of 31.25 Hz a row
  assert.ok(middle[64] >= 254 && middle[200] === 0);
});

test("a live stream that cannot keep up stops, and says how slow it is", async () => {
  const port = { close() {}, postMessage() {} };
  const slow = async (samples) => {
    await new Promise((done) => setTimeout(done, 20));
    return samples;
  };
  const report = await new Promise((told) => {
    new LiveStream({ sampleRate: 16000, latencySamples: 999, push: slow }, 16000, port, told, 0.05);
    for (let n = 0; n < 10; n++) port.onmessage?.({ data: noise(160) });  // 10 ms each, 20 ms to compute
  });
  assert.equal(report.overload, true);
  assert.ok(report.rtf > 1 && report.backlog > 0.05);
});

test("a model may be the ArrayBuffer that fetch gives", async () => {
  const text = (s) => [...new TextEncoder().encode(s)];
  const field = (number, bytes) => [(number << 3) | 2, bytes.length, ...bytes];
  const sizes = { kind: "streaming", sample_rate: 16000, latency_samples: 999, lookahead_frames: 6, hop_length: 100, window_length: 400, fft_size: 512, window: "hann" };
  const file = Uint8Array.from(Object.entries(sizes).flatMap(([key, value]) => field(14, [...field(1, text(key)), ...field(2, text(`${value}`))])));
  const ort = { InferenceSession: { create: async () => ({ inputMetadata: [] }) } };
  for (const model of [file, file.buffer]) assert.equal((await StreamingEnhancer.create(ort, model)).hop, 100);
});
