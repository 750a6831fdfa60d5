// The level at which the network hears a recording, and the offset it does not hear, as in
// dccrn_lib/enhancement/level.py: LevelMeter for a whole signal, OffsetControl and LevelControl for a live one.

const NETWORK_DBFS = -23;
const ACTIVE_DB = 25;
const PARTS = 10;  // of a frame, 5 ms each; a click lies in one of them, or in two
const CLICK_DB = 30;  // the peak of a frame with a click lies so far above the RMS of all but its CLICK_PARTS loudest parts
const CLICK_PARTS = 2;
const LOUDEST_HEARD = 4;  // full scale is 1: nothing but a click goes beyond
const FOLLOW_DB = 18;  // what lies so far below the loudest frame is still heard well; the rest is raised to here
const FOLLOW_SECONDS = 0.5;  // a frame's level is that of the loudest frame so near to it, on either side
const FOLLOW_MOST = 50;  // dB

/**
 * {offset, scale, scaleAt} of one channel: subtract, then divide, and its active frames of 50 ms lie at NETWORK_DBFS.
 * scaleAt(n) divides sample n: smaller than scale where a second around it is far quieter than the rest.
 */
export function measureLevel(samples, sampleRate) {
  const size = Math.max(1, Math.floor(sampleRate / (20 * PARTS))), length = samples.length;
  let total = 0, loudest = 0, peak = 0, level = 0, active = 0;
  for (let n = 0; n < length; n++) total += samples[n];
  const known = length >= Math.max(1, Math.floor(sampleRate / 10));
  const offset = Math.fround(known ? total / length : 0), frames = [];
  for (let n = 0; n + PARTS * size <= length; n += PARTS * size) frames.push(measureFrame(samples, n, size, PARTS, offset));
  if (!frames.length && length) frames.push(measureFrame(samples, 0, length, 1, offset));
  for (const frame of frames) loudest = Math.max(loudest, frame.energy);
  if (loudest <= 0) return { offset, scale: 1, scaleAt: () => 1 };
  for (const frame of frames) {
    peak = Math.max(peak, frame.peak);
    if (frame.energy > loudest / 10 ** (ACTIVE_DB / 10)) {
      level += frame.energy;
      active++;
    }
  }
  level = Math.sqrt(level / active);
  const scale = Math.fround(Math.max(level / 10 ** (NETWORK_DBFS / 20), peak, 1e-6));
  const rest = length % (PARTS * size);  // too short for a frame, it decides on no level, but may be loud
  if (rest && length > rest) frames.push(measureFrame(samples, length - rest, rest, 1, offset));
  const raised = raisedBy(frames.map((frame) => 10 * Math.log10(Math.max(frame.energy, 1e-20))));
  if (raised.every((decibels) => decibels === 0)) return { offset, scale, scaleAt: () => scale };
  const scaleAt = (n) => {
    const at = Math.min(Math.max(n / (PARTS * size) - 0.5, 0), raised.length - 1), before = Math.floor(at);
    const after = Math.min(before + 1, raised.length - 1);
    return scale * 10 ** (-(raised[before] + (at - before) * (raised[after] - raised[before])) / 20);
  };
  return { offset, scale, scaleAt };
}

/** Levels of frames in dB -> what each is raised by, in dB. */
function raisedBy(decibels) {
  const reach = Math.round(FOLLOW_SECONDS * 20), half = Math.floor(reach / 2), last = decibels.length - 1;
  const most = (list) => list.reduce((a, b) => Math.max(a, b), -Infinity);
  const wanted = most(decibels) - FOLLOW_DB;
  const missing = decibels.map((_, k) => {
    const loudest = most(decibels.slice(Math.max(0, k - reach), k + reach + 1));
    return Math.min(Math.max(wanted - loudest, 0), FOLLOW_MOST);
  });
  return missing.map((_, k) => {
    let sum = 0;
    for (let n = k - half; n <= k + half; n++) sum += missing[Math.min(Math.max(n, 0), last)];
    return sum / (2 * half + 1);
  });
}

/** {energy, peak} about the offset of one frame of parts, without those with a click. */
function measureFrame(samples, start, size, count, offset) {
  let centre = 0;
  for (let n = start; n < start + count * size; n++) centre += samples[n] / (count * size);
  const parts = [];
  for (let first = start; first < start + count * size; first += size) {
    const part = { about: 0, energy: 0, highest: 0, peak: 0 };
    for (let n = first; n < first + size; n++) {
      part.about += (samples[n] - centre) ** 2 / size;
      part.energy += (samples[n] - offset) ** 2 / size;
      part.highest = Math.max(part.highest, Math.abs(samples[n] - centre));
      part.peak = Math.max(part.peak, Math.abs(samples[n] - offset));
    }
    parts.push(part);
  }
  const rest = [...parts].sort((a, b) => a.about - b.about).slice(0, -CLICK_PARTS);
  const mean = (list, key) => list.reduce((sum, part) => sum + part[key], 0) / list.length;
  const largest = (list, key) => list.reduce((most, part) => Math.max(most, part[key]), 0);
  const click = rest.length && largest(parts, "highest") ** 2 > mean(rest, "about") * 10 ** (CLICK_DB / 10);
  const counted = click ? rest : parts;
  return { energy: mean(counted, "energy"), peak: largest(counted, "peak") };
}

/** What the network hears of samples at its level (changed in place): a click far beyond it would ring through frames. */
export function limited(samples) {
  for (let n = 0; n < samples.length; n++) samples[n] = Math.min(Math.max(samples[n], -LOUDEST_HEARD), LOUDEST_HEARD);
  return samples;
}

/** The constant offset of a live signal, from this hop and those before it; exactly 0 where it is not beyond doubt. */
export class OffsetControl {
  static SECONDS = 5;
  static SURE = 9;  // square of three standard deviations
  static LEAST = 8;  // hops before anything is known

  constructor(hopSeconds) {
    this.slowest = hopSeconds / OffsetControl.SECONDS;
    this.hops = this.mean = this.variance = this.latest = 0;
  }

  /** Mean of the next hop -> its offset. */
  follow(mean) {
    this.hops++;
    const weight = Math.max(1 / this.hops, this.slowest), difference = mean - this.mean;
    this.mean += weight * difference;
    this.variance = (1 - weight) * (this.variance + weight * difference ** 2);
    const doubt = OffsetControl.SURE * this.variance * weight;
    const certain = this.mean ** 2 > doubt && this.hops >= OffsetControl.LEAST;
    this.latest = certain ? this.mean - doubt / this.mean : 0;
    return this.latest;
  }
}

/** A gain for each frame of a live signal from this frame and those before it; exactly 1 at usual levels. */
export class LevelControl {
  static USUAL = [-17, -10];  // dBFS, mean square of the loudest frames
  static RELEASE = 3;  // dB per second
  static MOST = 50;  // dB of gain
  static SUDDEN_DB = 20;  // a frame so much louder than all before is remembered only
  static SUDDEN_SECONDS = 0.05;  // after as much of them: longer than a click

  constructor(frameSeconds) {
    this.fade = 10 ** ((-LevelControl.RELEASE * frameSeconds) / 10);
    this.soon = Math.ceil(LevelControl.SUDDEN_SECONDS / frameSeconds);
    this.loudest = this.waited = 0;
  }

  /** Mean square of the next frame -> its gain. */
  gain(power) {
    const [low, high] = LevelControl.USUAL.map((edge) => 10 ** (edge / 10));
    this.waited = power > 10 ** (LevelControl.SUDDEN_DB / 10) * this.loudest ? this.waited + 1 : 0;
    const faded = this.loudest * this.fade;
    this.loudest = this.waited > 0 && this.waited < this.soon ? faded : Math.max(faded, power);
    const level = Math.max(this.loudest, power), wanted = Math.min(Math.max(level, low), high);
    if (wanted === level) return 1;
    return Math.sqrt(wanted / Math.max(level, low / 10 ** (LevelControl.MOST / 10)));
  }
}
