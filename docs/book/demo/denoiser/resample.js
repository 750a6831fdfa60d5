// Change of sampling rate as in dccrn_lib/audio/resampling.py: one polyphase windowed sinc, delay zero, and the
// same result at once or block by block.

export const ZERO_CROSSINGS = 64;
const ROLLOFF = 0.9475937167399596;
const BETA = 14.769656459379492;
const LARGEST_KERNEL = 4_000_000;  // taps that are kept; beyond it (767,999 to 16,000 Hz, say) they are computed as needed
const TABLE_STEPS = 4096;  // table entries per zero crossing

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

const BESSEL0_BETA = bessel0(BETA);

/** The filter at t zero crossings from its middle, |t| <= ZERO_CROSSINGS. */
function windowedSinc(t) {
  const sinc = t === 0 ? 1 : Math.sin(Math.PI * t) / (Math.PI * t);
  return sinc * (bessel0(BETA * Math.sqrt(1 - (t / ZERO_CROSSINGS) ** 2)) / BESSEL0_BETA);
}

let table;

/** windowedSinc(t) from a table, between whose entries it is linear. */
function tabulated(t) {
  table ??= Float64Array.from({ length: ZERO_CROSSINGS * TABLE_STEPS + 2 }, (_, n) => windowedSinc(Math.min(n / TABLE_STEPS, ZERO_CROSSINGS)));
  const position = Math.abs(t) * TABLE_STEPS, below = Math.floor(position);
  return table[below] + (position - below) * (table[below + 1] - table[below]);
}

/** Input samples on either side of an output sample that its filter touches. */
export const halfWidth = (from, to) => Math.ceil((ZERO_CROSSINGS * from) / (Math.min(from, to) * ROLLOFF));

/** The filters of one reduced ratio, one for each phase of the output. */
class Polyphase {
  constructor(from, to) {
    this.from = from;
    this.to = to;
    this.width = halfWidth(from, to);
    this.length = 2 * this.width + 2;
    this.kept = to * this.length <= LARGEST_KERNEL ? new Array(to) : null;
    this.scratch = new Float32Array(this.length);
  }

  /** Where the taps of phase p begin. */
  shift(p) {
    return Math.floor((p * this.from) / this.to);
  }

  /** Float32Array[length]: output j to + p is sum_k taps(p)[k] x[j from + shift(p) + k - width]. */
  taps(p) {
    if (!this.kept) return this.fill(this.scratch, p, tabulated);
    return (this.kept[p] ??= this.fill(new Float32Array(this.length), p, windowedSinc));
  }

  fill(taps, p, filter) {
    const { from, to, width } = this, base = Math.min(from, to) * ROLLOFF, shift = this.shift(p);
    for (let k = 0; k < taps.length; k++) {
      const t = ((shift + k - width) / from - p / to) * base;
      taps[k] = (filter(Math.max(-ZERO_CROSSINGS, Math.min(ZERO_CROSSINGS, t))) * base) / from;
    }
    return taps;
  }
}

const filters = new Map();

function polyphase(from, to) {
  const key = `${from}:${to}`;
  if (!filters.has(key)) {
    if (filters.size > 7) filters.clear();
    filters.set(key, new Polyphase(from, to));
  }
  return filters.get(key);
}

/** Float32Array at `fromRate` Hz -> Float32Array of ceil(length * toRate / fromRate) samples at `toRate` Hz. */
export function resample(x, fromRate, toRate) {
  const [from, to] = reduced(fromRate, toRate);
  if (from === to) return x;
  return piece(x, from, to, 0, Math.ceil((x.length * to) / from));
}

/** Output samples begin ... end - 1 of `x`. */
function piece(x, from, to, begin, end) {
  const filter = polyphase(from, to), out = new Float32Array(end - begin);
  for (let n = begin; n < end; n++) {
    const p = n % to, start = ((n - p) / to) * from + filter.shift(p) - filter.width, taps = filter.taps(p);
    const first = Math.max(0, -start), last = Math.min(filter.length, x.length - start);
    let sum = 0;
    for (let k = first; k < last; k++) sum += taps[k] * x[start + k];
    out[n - begin] = sum;
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
    const first = this.context * this.to, count = blocks * this.to;
    const result = piece(buffer.subarray(0, (blocks + 2 * this.context) * this.from), this.from, this.to, first, first + count);
    this.buffer = buffer.slice(blocks * this.from);
    this.returned += count;
    return result;
  }

  /** The rest: ceil(received * to / from) samples in all; then as new. */
  flush() {
    const missing = Math.ceil((this.received * this.to) / this.from) - this.returned;
    const rest = this.from === this.to ? new Float32Array(0) : this.push(new Float32Array((2 * this.context + 1) * this.from));
    this.reset();
    return rest.subarray(0, missing);
  }
}
