// A whole recording: resampled to the network's rate, brought to one level, enhanced channel by channel, resampled
// back and cut to the input's length, as in dccrn_lib/enhancement/waveform.py.

import { limited, measureLevel } from "./level.js";
import { StreamingResampler } from "./resample.js";

const BLOCK_SECONDS = 0.25;

/** Give waiting events (a cancel, a repaint) their turn. */
export const breathe = () =>
  new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(0);
  });

/**
 * Enhance channels (Float32Array each) at sampleRate Hz.
 *
 * @param enhancer a StreamingEnhancer
 * @param {{onProgress?: (fraction: number) => void, signal?: {aborted: boolean}}} options
 * @returns enhanced channels of the same rate and length; null if signal.aborted became true
 */
export async function enhance(enhancer, channels, sampleRate, { onProgress, signal } = {}) {
  const size = Math.max(1, Math.floor(BLOCK_SECONDS * sampleRate)), done = [];
  for (const [index, samples] of channels.entries()) {
    const { offset, scaleAt } = measureLevel(samples, sampleRate), out = new Float32Array(samples.length);
    const down = new StreamingResampler(sampleRate, enhancer.sampleRate);
    const up = new StreamingResampler(enhancer.sampleRate, sampleRate);
    let late = enhancer.latencySamples, written = 0;
    const write = (piece) => {
      const fitting = piece.subarray(0, out.length - written);
      for (let n = 0; n < fitting.length; n++) out[written + n] = fitting[n] * scaleAt(written + n);
      written += fitting.length;
    };
    const cut = (piece) => {
      const first = Math.min(late, piece.length);
      late -= first;
      return piece.subarray(first);
    };
    enhancer.reset();
    for (let start = 0; start < samples.length; start += size) {
      const block = samples.slice(start, start + size).map((x, n) => (x - offset) / scaleAt(start + n));
      write(up.push(cut(await enhancer.push(limited(down.push(block))))));
      onProgress?.((index + Math.min(1, (start + size) / samples.length)) / channels.length);
      await breathe();
      if (signal?.aborted) return null;
    }
    write(up.push(cut(await enhancer.push(limited(down.flush())))));
    write(up.push(cut(await enhancer.flush())));
    write(up.flush());
    done.push(out);
  }
  return done;
}
