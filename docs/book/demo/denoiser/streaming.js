// The exported streaming student, frame by frame: what dccrn_lib's StreamingEnhancer and OnnxEnhancer do.
//
//   spectrum (1, 2, freq, 1), active (1,), state.* -> enhanced (1, 2, freq, 1), new_state.*

import { LevelControl, OffsetControl } from "./level.js";
import { readMetadata } from "./metadata.js";
import { STFT } from "./stft.js";

const LOUDEST = 1e6;  // beyond it the network's numbers overflow

export class StreamingEnhancer {
  /**
   * @param ort the module onnxruntime-web
   * @param {Uint8Array|ArrayBuffer} model a file written by `python -m dccrn_lib export`
   * @param {{levelControl?: boolean}} options levelControl brings quiet and loud live signals to usual levels
   */
  static async create(ort, model, options = {}) {
    const bytes = model instanceof Uint8Array ? model : new Uint8Array(model);  // fetch gives an ArrayBuffer
    const metadata = readMetadata(bytes);
    if (metadata.kind !== "streaming") {
      throw new Error("the model is not a streaming one written by dccrn_lib; write it with: python -m dccrn_lib export");
    }
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    return new StreamingEnhancer(ort, session, metadata, options);
  }

  constructor(ort, session, metadata, { levelControl = false } = {}) {
    Object.assign(this, { ort, session, metadata, levelControl });
    const number = (key) => Number(metadata[key]);
    this.sampleRate = number("sample_rate");
    this.latencySamples = number("latency_samples");
    this.delay = number("lookahead_frames");
    this.hop = number("hop_length");
    this.overlap = number("window_length") - this.hop;
    this.stft = new STFT({
      windowLength: number("window_length"),
      hopLength: this.hop,
      fftSize: number("fft_size"),
      window: metadata.window,
    });
    this.piece = new Float64Array(number("window_length"));
    this.reset();
  }

  /** A second stream with the same session. */
  fork(options = {}) {
    return new StreamingEnhancer(this.ort, this.session, this.metadata, options);
  }

  /** Forget everything pushed. */
  reset() {
    const { Tensor } = this.ort;
    this.feeds = {};
    for (const { name, shape } of this.session.inputMetadata) {
      this.feeds[name] = new Tensor("float32", new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    }
    this.input = new Float32Array(this.overlap);
    this.tail = new Float64Array(this.overlap);
    this.ready = new Float32Array(this.hop - 1);
    this.received = 0;
    this.level = new LevelControl(this.hop / this.sampleRate);
    this.offset = new OffsetControl(this.hop / this.sampleRate);
    this.peak = 1;  // what the output may reach: full scale, or the input's peak
    this.gains = new Array(this.delay).fill(1);  // of the frames that wait for their mask
    this.blank = this.overlap + this.delay * this.hop;  // padding left of the signal, the decoder's warm-up
  }

  /** Take samples at sampleRate, any number; give as many, latencySamples late. Await it before the next call. */
  async push(samples) {
    for (let n = 0; n < samples.length; n++) {
      if (!(Math.abs(samples[n]) <= LOUDEST)) {  // NaN is not
        throw new RangeError("samples hold NaN, infinity or values beyond 1e6 (full scale is 1); clean them first");
      }
    }
    this.received += samples.length;
    await this.#consume(samples, 1);
    return this.#emit(samples.length);
  }

  /** End the signal: the last latencySamples samples; then as new. */
  async flush() {
    const padding = new Float32Array(this.stft.frameCount(this.received) * this.hop - this.received);
    await this.#consume(padding.fill(this.offset.latest), 1);  // 0 once the offset is left out
    await this.#consume(new Float32Array(this.delay * this.hop), 0);  // frames marked as absent drain the decoder
    const last = this.#emit(this.latencySamples);
    this.reset();
    return last;
  }

  #emit(count) {
    const out = this.ready.slice(0, count);
    this.ready = this.ready.slice(count);
    return out;
  }

  async #consume(samples, active) {
    const { hop, overlap } = this, line = new Float32Array(this.input.length + samples.length);
    line.set(this.input);
    line.set(samples, this.input.length);
    const frames = Math.floor((line.length - overlap) / hop);
    const done = new Float32Array(this.ready.length + frames * hop);
    done.set(this.ready);
    const peaks = this.levelControl ? this.#leaveOutOffset(line.subarray(overlap, overlap + frames * hop)) : null;
    for (let k = 0; k < frames; k++) {
      if (peaks) this.peak = peaks[k];
      await this.#frame(line, k * hop, active, done.subarray(this.ready.length + k * hop, this.ready.length + (k + 1) * hop));
    }
    this.ready = done;
    this.input = line.slice(frames * hop);
  }

  /** Subtract from whole hops of new samples, in place, what is constant in them; give the peak so far at each hop. */
  #leaveOutOffset(samples) {
    const peaks = [];
    let peak = this.peak;
    for (let start = 0; start < samples.length; start += this.hop) {
      const hop = samples.subarray(start, start + this.hop);
      const offset = this.offset.follow(hop.reduce((sum, value) => sum + value, 0) / this.hop);
      for (let n = 0; n < hop.length; n++) {
        hop[n] -= offset;
        peak = Math.max(peak, Math.abs(hop[n]));
      }
      peaks.push(peak);
    }
    return peaks;
  }

  /** One frame of line from start on -> hop finished samples in out. */
  async #frame(line, start, active, out) {
    const { hop, overlap, stft, feeds, piece } = this, { frequencies, windowLength } = stft;
    let before = 1;
    if (this.levelControl) {
      let power = 0;
      for (let n = 0; n < windowLength; n++) power += line[start + n] ** 2;
      before = this.level.gain(power / windowLength);
    }
    this.gains.push(before);
    const after = this.gains.shift();
    const spectrum = feeds.spectrum.data;
    stft.analyse(line, start, spectrum.subarray(0, frequencies), spectrum.subarray(frequencies));
    if (before !== 1) for (let f = 0; f < spectrum.length; f++) spectrum[f] *= before;
    feeds.active.data[0] = active;
    const answer = await this.session.run(feeds);
    for (const name in feeds) if (name.startsWith("state.")) feeds[name] = answer[`new_${name}`];
    const enhanced = answer.enhanced.data;
    if (after !== 1) for (let f = 0; f < enhanced.length; f++) enhanced[f] /= after;
    stft.synthesise(enhanced.subarray(0, frequencies), enhanced.subarray(frequencies), piece);
    for (let n = 0; n < overlap; n++) piece[n] += this.tail[n];
    for (let n = 0; n < hop; n++) {
      out[n] = n < this.blank ? 0 : Math.min(Math.max(piece[n] / stft.weight[n], -this.peak), this.peak);
    }
    this.tail.set(piece.subarray(hop, hop + overlap));
    this.blank = Math.max(0, this.blank - hop);
  }
}
