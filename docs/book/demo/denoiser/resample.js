// Change of sampling rate as in dccrn_lib/audio/resampling.py: one polyphase windowed sinc, delay zero, and the
// same result at once or block by block.

export const ZERO_CROSSINGS = 64;
const ROLLOFF = 0.9475937167399596;
const BETA = 14.769656459379492;

const divisor = (a, b) => (b ? divisor(b, a % b) : a);

function reduced(from, to) {
  for (const rate of [from, to]) {
    if (!Number.isInteger(rate) || rate < 1) throw new RangeError(`a sampling rate must be a positive whole number of Hz, got ${rate}`);
  }
  const common = divisor(from, to);
  return [from / common, to / common];
}

/** Modified Bessel function of the first kind, order 0, by its power series. */
function bessel0(x) {
  let sum = 1, term = 1;
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

const kernels = new Map();

/** {width, taps, phases: Float32Array[new]}: output j new + p is sum_i phases[p][i] x[j old + i - width]. */
function polyphase(from, to) {
  const key = `${from}:${to}`;
  if (!kernels.has(key)) {
    const base = Math.min(from, to) * ROLLOFF;
    const width = Math.ceil((ZERO_CROSSINGS * from) / base), taps = 2 * width + from;
    const phases = Array.from({ length: to }, (_, p) =>
      Float32Array.from({ length: taps }, (_, i) => {
        const t = Math.max(-ZERO_CROSSINGS, Math.min(ZERO_CROSSINGS, ((i - width) / from - p / to) * base));
        const sinc = t === 0 ? 1 : Math.sin(Math.PI * t) / (Math.PI * t);
        const window = bessel0(BETA * Math.sqrt(1 - (t / ZERO_CROSSINGS) ** 2)) / bessel0(BETA);
        return (sinc * window * base) / from;
      }),
    );
    if (kernels.size > 7) kernels.clear();
    kernels.set(key, { width, phases });
  }
  return kernels.get(key);
}

/** Input samples on either side of an output sample that its filter touches. */
export const halfWidth = (from, to) => Math.ceil((ZERO_CROSSINGS * from) / (Math.min(from, to) * ROLLOFF));

/** Float32Array at `fromRate` Hz -> Float32Array of ceil(length * toRate / fromRate) samples at `toRate` Hz. */
export function resample(x, fromRate, toRate) {
  const [from, to] = reduced(fromRate, toRate);
  if (from === to) return x;
  const { width, phases } = polyphase(from, to);
  const out = new Float32Array(Math.ceil((x.length * to) / from));
  for (let n = 0; n < out.length; n++) {
    const p = n % to, start = ((n - p) / to) * from - width, kernel = phases[p];
    // of the taps only those within the filter's half width of the output's own place differ from zero
    const shift = Math.floor((p * from) / to);
    const first = Math.max(shift, -start), last = Math.min(shift + 2 * width + 2, kernel.length, x.length - start);
    let sum = 0;
    for (let i = first; i < last; i++) sum += kernel[i] * x[start + i];
    out[n] = sum;
  }
  return out;
}

/** Resample a signal that arrives in blocks, to the result that the whole signal would give. */
export class StreamingResampler {
  constructor(fromRate, toRate) {
    [this.from, this.to] = reduced(fromRate, toRate);
    // context in whole blocks of `from` input samples
    this.context = Math.ceil((halfWidth(this.from, this.to) + 1) / this.from);
    this.reset();
  }

  reset() {
    this.buffer = new Float32Array(this.context * this.from);
    this.received = this.returned = 0;
  }

  /** Most input samples that wait inside at any time. */
  get latencySamples() {
    return this.from === this.to ? 0 : (this.context + 1) * this.from - 1;
  }

  /** Take any number of samples; return the output samples that are now certain. */
  push(x) {
    this.received += x.length;
    if (this.from === this.to) return x;
    const buffer = new Float32Array(this.buffer.length + x.length);
    buffer.set(this.buffer);
    buffer.set(x, this.buffer.length);
    const blocks = Math.floor(buffer.length / this.from) - 2 * this.context;
    this.buffer = buffer;
    if (blocks < 1) return new Float32Array(0);
    const result = resample(buffer.subarray(0, (blocks + 2 * this.context) * this.from), this.from, this.to);
    this.buffer = buffer.slice(blocks * this.from);
    this.returned += blocks * this.to;
    return result.slice(this.context * this.to, (this.context + blocks) * this.to);
  }

  /** The rest: ceil(received * to / from) samples in all; then as new. */
  flush() {
    const missing = Math.ceil((this.received * this.to) / this.from) - this.returned;
    const rest = this.from === this.to ? new Float32Array(0) : this.push(new Float32Array((2 * this.context + 1) * this.from));
    this.reset();
    return rest.subarray(0, missing);
  }
}
