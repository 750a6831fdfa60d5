// The short-time Fourier transform of dccrn_lib/audio/stft.py: frame k covers the samples
// [k hop - (window - hop), (k + 1) hop), windowed, zero-padded on the right to fftSize; a spectrum is two Float32Arrays.

/** Periodic window: "hann" w[n] = (1 - cos(2 pi n / N)) / 2, or its square root "sqrt_hann". */
export function periodicWindow(length, kind = "hann") {
  if (kind !== "hann" && kind !== "sqrt_hann") throw new RangeError(`unknown window ${kind}; known: hann, sqrt_hann`);
  return Float32Array.from({ length }, (_, n) => {
    const value = 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / length);
    return kind === "hann" ? value : Math.sqrt(value);
  });
}

/** In-place complex FFT of a power of two in double precision, radix 2. */
export class FFT {
  constructor(size) {
    if (size < 2 || (size & (size - 1)) !== 0) throw new RangeError(`FFT size must be a power of two, got ${size}`);
    this.size = size;
    this.cos = Float64Array.from({ length: size / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / size));
    this.sin = Float64Array.from({ length: size / 2 }, (_, k) => Math.sin((2 * Math.PI * k) / size));
    this.reversed = new Uint32Array(size);
    for (let i = 1; i < size; i++) this.reversed[i] = (this.reversed[i >> 1] >> 1) | (i & 1 ? size >> 1 : 0);
  }

  /** X[k] = sum_n x[n] exp(sign 2 pi j k n / N), not normalised; sign is -1 (forward) or +1. */
  transform(real, imag, sign = -1) {
    const { size, cos, sin, reversed } = this;
    for (let i = 0; i < size; i++) {
      const j = reversed[i];
      if (j > i) {
        [real[i], real[j]] = [real[j], real[i]];
        [imag[i], imag[j]] = [imag[j], imag[i]];
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const step = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0; k < half; k++) {
          const a = start + k, b = a + half;
          const wr = cos[k * step], wi = sign * sin[k * step];
          const re = real[b] * wr - imag[b] * wi, im = real[b] * wi + imag[b] * wr;
          real[b] = real[a] - re;
          imag[b] = imag[a] - im;
          real[a] += re;
          imag[a] += im;
        }
      }
    }
  }
}

export class STFT {
  /** Sizes in samples; the defaults are DCCRN's at 16 kHz. */
  constructor({ windowLength = 400, hopLength = 100, fftSize = 512, window = "hann" } = {}) {
    if (!(hopLength >= 1 && hopLength <= windowLength && windowLength <= fftSize)) {
      throw new RangeError(
        `STFT sizes must satisfy 1 <= hop <= window <= FFT, got ${hopLength}, ${windowLength} and ${fftSize}`,
      );
    }
    Object.assign(this, { windowLength, hopLength, fftSize });
    this.frequencies = fftSize / 2 + 1;
    this.window = periodicWindow(windowLength, window);
    this.fft = new FFT(fftSize);
    this.real = new Float64Array(fftSize);
    this.imag = new Float64Array(fftSize);
    // sum_k w[n - k hop]^2 is periodic in n with period hop
    this.weight = new Float64Array(hopLength);
    for (let n = 0; n < windowLength; n++) this.weight[n % hopLength] += this.window[n] ** 2;
    this.weight = this.weight.map((w) => Math.max(w, 1e-8));
  }

  /** Number of frames for a signal: every sample lies in all frames that can hold it. */
  frameCount(samples) {
    return Math.floor((samples - 1 + this.windowLength - this.hopLength) / this.hopLength) + 1;
  }

  /** One frame: samples[start ... start + windowLength) -> real and imag, each of `frequencies` values from offset. */
  analyse(samples, start, real, imag, offset = 0) {
    this.real.fill(0);
    this.imag.fill(0);
    for (let n = 0; n < this.windowLength; n++) this.real[n] = samples[start + n] * this.window[n];
    this.fft.transform(this.real, this.imag, -1);
    for (let f = 0; f < this.frequencies; f++) {
      real[offset + f] = this.real[f];
      imag[offset + f] = this.imag[f];
    }
  }

  /** One frame back: `frequencies` values from offset -> windowed piece (windowLength), to be overlap-added. */
  synthesise(real, imag, piece, offset = 0) {
    const { fftSize, frequencies } = this;
    for (let f = 0; f < frequencies; f++) {
      this.real[f] = real[offset + f];
      this.imag[f] = imag[offset + f];
    }
    this.imag[0] = this.imag[frequencies - 1] = 0;  // a real signal has none there
    for (let f = 1; f < frequencies - 1; f++) {
      this.real[fftSize - f] = this.real[f];
      this.imag[fftSize - f] = -this.imag[f];
    }
    this.fft.transform(this.real, this.imag, 1);
    for (let n = 0; n < this.windowLength; n++) piece[n] = (this.real[n] / fftSize) * this.window[n];
  }

  /** Whole signal -> {real, imag, frames}; frame k begins at k * frequencies. */
  forward(x) {
    if (!x.length) throw new RangeError("expected at least one sample, got none");
    const frames = this.frameCount(x.length), left = this.windowLength - this.hopLength;
    const padded = new Float32Array((frames - 1) * this.hopLength + this.windowLength);
    padded.set(x, left);
    const real = new Float32Array(frames * this.frequencies), imag = new Float32Array(real.length);
    for (let k = 0; k < frames; k++) this.analyse(padded, k * this.hopLength, real, imag, k * this.frequencies);
    return { real, imag, frames };
  }

  /** Inverse of forward: the first `length` samples. */
  inverse({ real, imag, frames }, length) {
    const { windowLength, hopLength, weight } = this, left = windowLength - hopLength;
    const total = (frames - 1) * hopLength + windowLength;
    if (length < 1 || left + length > total) {
      throw new RangeError(`${frames} frames give at most ${total - left} samples, asked for ${length}`);
    }
    const sum = new Float64Array(total), piece = new Float64Array(windowLength);
    for (let k = 0; k < frames; k++) {
      this.synthesise(real, imag, piece, k * this.frequencies);
      for (let n = 0; n < windowLength; n++) sum[k * hopLength + n] += piece[n];
    }
    // y[n] = sum_k w[n - k hop] y_k[n - k hop] / sum_k w[n - k hop]^2
    return Float32Array.from({ length }, (_, n) => sum[left + n] / weight[(left + n) % hopLength]);
  }
}
