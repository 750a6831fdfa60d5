// The computing end of a live stream: pieces of the microphone come through a port, enhanced pieces go back,
// numbered so that sample n of what goes back belongs to sample n of what came.

import { breathe } from "./engine.js";
import { StreamingResampler } from "./resample.js";

const BACKLOG_SECONDS = 0.5;  // of sound that waits: then the machine is too slow
const REPORT_SECONDS = 0.25;

export class LiveStream {
  /** @param report called with {rtf, backlog} a few times per second, {overload: true, rtf, backlog} or {failure: text} once */
  constructor(enhancer, sampleRate, port, report, backlogSeconds = BACKLOG_SECONDS) {
    Object.assign(this, { enhancer, sampleRate, port, report, backlogSeconds });
    this.down = new StreamingResampler(sampleRate, enhancer.sampleRate);
    this.up = new StreamingResampler(enhancer.sampleRate, sampleRate);
    this.late = enhancer.latencySamples;  // of the network's output, still to be cut off
    this.written = 0;
    this.waiting = [];
    this.busy = false;
    this.computed = this.heard = 0;  // seconds of computing and of audio since the last report
    port.onmessage = ({ data }) => {
      this.waiting.push(data);
      this.#work();
    };
  }

  /** Samples at sampleRate by which the result lags, computing aside. */
  get delaySamples() {
    const ratio = this.sampleRate / this.enhancer.sampleRate;
    return this.down.latencySamples + Math.ceil((this.enhancer.latencySamples + this.up.latencySamples) * ratio);
  }

  stop() {
    this.port.onmessage = null;
    this.port.close();
    this.waiting = [];
    this.stopped = true;
  }

  async #work() {
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.waiting.length && !this.stopped) {
        await this.#step(this.waiting.shift());
        await breathe();  // lets the pieces in that have come meanwhile
      }
    } catch (error) {
      this.stop();
      this.report({ failure: error.message });
    }
    this.busy = false;
  }

  async #step(samples) {
    const start = performance.now();
    let piece = await this.enhancer.push(this.down.push(samples));
    const first = Math.min(this.late, piece.length);
    this.late -= first;
    piece = this.up.push(piece.subarray(first)).slice();
    this.computed += (performance.now() - start) / 1000;
    this.heard += samples.length / this.sampleRate;
    const { length } = piece;  // 0 after the transfer
    if (length) this.port.postMessage({ start: this.written, samples: piece }, [piece.buffer]);
    this.written += length;
    const backlog = this.waiting.reduce((sum, x) => sum + x.length, 0) / this.sampleRate;
    const rtf = this.computed / this.heard;
    if (backlog > this.backlogSeconds) {
      this.stop();
      this.report({ overload: true, rtf, backlog });
    } else if (this.heard >= REPORT_SECONDS) {
      this.report({ rtf, backlog });
      this.computed = this.heard = 0;
    }
  }
}
