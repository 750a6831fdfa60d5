// A spectrogram as bytes: 0 is `FLOOR_DB` below the reference and less, 255 the reference.

import { resample } from "./resample.js";
import { STFT } from "./stft.js";

export const FLOOR_DB = -80;
const RATE = 16000;

/** Squared magnitudes of one frame -> bytes of one column, lowest frequency first. */
export function column(real, imag, offset, count, reference, out, at) {
  for (let f = 0; f < count; f++) {
    const power = real[offset + f] ** 2 + imag[offset + f] ** 2;
    const db = 10 * Math.log10(power / reference + 1e-20);
    out[at + f] = Math.round(255 * Math.min(Math.max(1 - db / FLOOR_DB, 0), 1));
  }
}

/**
 * @param samples one channel at sampleRate Hz
 * @param columns most columns wanted; frames that fall on one column keep the loudest
 * @param reference power of the loudest bin that counts as 0 dB; the signal's own when it is not given
 * @returns {{pixels: Uint8Array, columns: number, rows: number, reference: number}} columns one after the other
 */
export function picture(samples, sampleRate, columns, reference) {
  const stft = new STFT(), rows = stft.frequencies;
  const { real, imag, frames } = stft.forward(resample(samples, sampleRate, RATE));
  if (!reference) {
    reference = 1e-12;
    for (let i = 0; i < real.length; i++) reference = Math.max(reference, real[i] ** 2 + imag[i] ** 2);
  }
  const width = Math.min(columns, frames), pixels = new Uint8Array(width * rows), one = new Uint8Array(rows);
  for (let k = 0; k < frames; k++) {
    column(real, imag, k * rows, rows, reference, one, 0);
    const at = Math.floor((k * width) / frames) * rows;
    for (let f = 0; f < rows; f++) pixels[at + f] = Math.max(pixels[at + f], one[f]);
  }
  return { pixels, columns: width, rows, reference };
}
