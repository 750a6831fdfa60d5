// A spectrogram on a canvas: kHz and seconds on its axes, a playhead, and a live form that scrolls.

import { column, FLOOR_DB, STFT, StreamingResampler } from "../denoiser/index.js";

// matplotlib's magma (CC0) at 17 places
const MAGMA = [
  [0, 0, 4], [10, 8, 34], [29, 17, 71], [54, 16, 107], [81, 18, 124], [106, 28, 129], [131, 38, 129], [156, 46, 127], [183, 55, 121],
  [208, 65, 111], [231, 82, 99], [245, 107, 92], [252, 137, 97], [254, 167, 114], [254, 196, 136], [253, 226, 163], [252, 253, 191],
];
const RATE = 16000;
const LEFT = 46, BOTTOM = 20, TOP = 6, RIGHT = 8;  // CSS pixels around the picture
export const LIVE_SECONDS = 6;

const palette = new Uint32Array(256);
for (let i = 0; i < 256; i++) {
  const at = (i / 255) * 16, k = Math.min(15, Math.floor(at)), part = at - k;
  const [r, g, b] = MAGMA[k].map((low, c) => Math.round(low + part * (MAGMA[k + 1][c] - low)));
  palette[i] = (255 << 24) | (b << 16) | (g << 8) | r;  // little-endian RGBA
}

/** The colour scale as a CSS gradient. */
export const gradient = `linear-gradient(to right, ${MAGMA.map((c) => `rgb(${c.join(" ")})`).join(", ")})`;
export const DB_RANGE = [FLOOR_DB, 0];

function stepFor(seconds, width) {
  const wanted = (seconds * 60) / width;  // at least 60 pixels apart
  return [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300].find((step) => step >= wanted) ?? 600;
}

export class Spectrogram {
  constructor(canvas) {
    this.canvas = canvas;
    this.playhead = null;
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Show a picture (picture.js) of `seconds` of sound. */
  show({ pixels, columns, rows }, seconds) {
    const image = new ImageData(columns, rows), words = new Uint32Array(image.data.buffer);
    for (let x = 0; x < columns; x++) {
      for (let f = 0; f < rows; f++) words[(rows - 1 - f) * columns + x] = palette[pixels[x * rows + f]];
    }
    this.image = new OffscreenCanvas(columns, rows);
    this.image.getContext("2d").putImageData(image, 0, 0);
    this.seconds = seconds;
    this.live = false;
    this.draw();
  }

  clear() {
    this.image = null;
    this.draw();
  }

  /** Share of the width (0 ... 1) at a pointer's x. */
  shareAt(clientX) {
    const box = this.canvas.getBoundingClientRect();
    return Math.min(Math.max((clientX - box.left - LEFT) / (box.width - LEFT - RIGHT), 0), 1);
  }

  draw() {
    const { canvas } = this, scale = window.devicePixelRatio || 1, { clientWidth: w, clientHeight: h } = canvas;
    if (!w) return;
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
    const g = canvas.getContext("2d"), width = w - LEFT - RIGHT, height = h - TOP - BOTTOM;
    g.scale(scale, scale);
    g.fillStyle = `rgb(${MAGMA[0].join(" ")})`;
    g.fillRect(LEFT, TOP, width, height);
    if (!this.image) return;
    g.drawImage(this.image, LEFT, TOP, width, height);
    g.font = "12px system-ui, sans-serif";
    g.fillStyle = g.strokeStyle = getComputedStyle(canvas).color;
    g.textAlign = "right";
    g.textBaseline = "middle";
    for (let khz = 0; khz <= 8; khz += 2) {
      const y = TOP + height * (1 - khz / 8);
      g.fillRect(LEFT - 4, y - 0.5, 4, 1);
      if (khz) g.fillText(khz === 8 ? "8 kHz" : String(khz), LEFT - 7, khz === 8 ? y + 6 : y);
    }
    g.textAlign = "center";
    g.textBaseline = "top";
    const step = stepFor(this.seconds, width);
    for (let t = 0; t <= this.seconds + 1e-6; t += step) {
      const x = LEFT + (width * t) / this.seconds, unit = t + step > this.seconds + 1e-6 ? " s" : "";
      g.fillRect(x - 0.5, TOP + height, 1, 4);
      const label = this.live ? `${t - this.seconds}` : `${t}`;
      g.textAlign = t === 0 ? "left" : x > LEFT + width - 24 ? "right" : "center";
      g.fillText(label + unit, t === 0 ? LEFT : Math.min(x, w - 2), TOP + height + 5);
    }
    if (this.playhead !== null) {
      const x = LEFT + width * this.playhead;
      g.fillStyle = "#000";
      g.fillRect(x - 1.5, TOP, 3, height);
      g.fillStyle = "#fff";
      g.fillRect(x - 0.75, TOP, 1.5, height);
    }
  }
}

/** The same for sound that arrives: the last LIVE_SECONDS, newest on the right. */
export class LiveSpectrogram {
  constructor(spectrogram, sampleRate) {
    this.spectrogram = spectrogram;
    this.stft = new STFT();
    this.resampler = new StreamingResampler(sampleRate, RATE);
    this.rest = new Float32Array(0);
    this.hop = 200;
    this.columns = Math.round((LIVE_SECONDS * RATE) / this.hop);
    this.rows = this.stft.frequencies;
    this.real = new Float32Array(this.rows);
    this.imag = new Float32Array(this.rows);
    this.bytes = new Uint8Array(this.rows);
    spectrogram.image = new OffscreenCanvas(this.columns, this.rows);
    spectrogram.seconds = LIVE_SECONDS;
    spectrogram.live = true;
    this.context = spectrogram.image.getContext("2d", { willReadFrequently: true });
    this.context.fillStyle = `rgb(${MAGMA[0].join(" ")})`;
    this.context.fillRect(0, 0, this.columns, this.rows);
  }

  /** Take samples; `reference` is the power that counts as 0 dB. */
  push(samples, reference) {
    const fresh = this.resampler.push(samples), line = new Float32Array(this.rest.length + fresh.length);
    line.set(this.rest);
    line.set(fresh, this.rest.length);
    const count = Math.max(0, Math.floor((line.length - this.stft.windowLength) / this.hop) + 1);
    if (count) {
      const image = new ImageData(count, this.rows), words = new Uint32Array(image.data.buffer);
      for (let x = 0; x < count; x++) {
        this.stft.analyse(line, x * this.hop, this.real, this.imag);
        column(this.real, this.imag, 0, this.rows, reference, this.bytes, 0);
        for (let f = 0; f < this.rows; f++) words[(this.rows - 1 - f) * count + x] = palette[this.bytes[f]];
      }
      this.context.drawImage(this.spectrogram.image, -count, 0);
      this.context.putImageData(image, this.columns - count, 0);
    }
    this.rest = line.slice(count * this.hop);
  }
}
