// The level at which the network hears a recording, and the offset it does not hear, as in
// dccrn_lib/enhancement/level.py: LevelMeter for a whole signal, OffsetControl and LevelControl for a live one.

const NETWORK_DBFS = -23;
const ACTIVE_DB = 25;

/** {offset, scale} of one channel: subtract, then divide, and its active frames of 50 ms lie at NETWORK_DBFS. */
export function measureLevel(samples, sampleRate) {
  const frame = Math.max(1, Math.round(0.05 * sampleRate)), energies = [];
  let total = 0;
  for (let n = 0; n < samples.length; n++) total += samples[n];
  const known = samples.length >= Math.max(1, Math.floor(sampleRate / 10));
  const offset = Math.fround(known ? total / samples.length : 0);
  let peak = 0, sum = 0;
  for (let n = 0; n < samples.length; n++) {
    const value = samples[n] - offset;
    peak = Math.max(peak, Math.abs(value));
    sum += value ** 2;
    if ((n + 1) % frame === 0) {
      energies.push(sum / frame);
      sum = 0;
    }
  }
  if (!energies.length && samples.length) energies.push(sum / samples.length);
  const top = energies.reduce((a, b) => Math.max(a, b), 0);
  if (top <= 0) return { offset, scale: Math.fround(Math.max(1, peak)) };
  const active = energies.filter((e) => e > top / 10 ** (ACTIVE_DB / 10));
  const level = Math.sqrt(active.reduce((a, b) => a + b, 0) / active.length);
  return { offset, scale: Math.fround(Math.max(level / 10 ** (NETWORK_DBFS / 20), peak, 1e-6)) };
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
  static RELEASE = 1;  // dB per second
  static MOST = 50;  // dB of gain

  constructor(frameSeconds) {
    this.fade = 10 ** ((-LevelControl.RELEASE * frameSeconds) / 10);
    this.loudest = 0;
  }

  /** Mean square of the next frame -> its gain. */
  gain(power) {
    const [low, high] = LevelControl.USUAL.map((edge) => 10 ** (edge / 10));
    this.loudest = Math.max(this.loudest * this.fade, power);
    const wanted = Math.min(Math.max(this.loudest, low), high);
    if (wanted === this.loudest) return 1;
    return Math.sqrt(wanted / Math.max(this.loudest, low / 10 ** (LevelControl.MOST / 10)));
  }
}
