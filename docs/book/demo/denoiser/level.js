// The level at which the network hears a recording, as in dccrn_lib/enhancement/level.py: LevelMeter for a whole
// signal, LevelControl for a live one.

const NETWORK_DBFS = -23;
const ACTIVE_DB = 25;

/** What to divide one channel by so that its active frames of 50 ms reach the network at NETWORK_DBFS. */
export function levelScale(samples, sampleRate) {
  const frame = Math.max(1, Math.round(0.05 * sampleRate)), energies = [];
  let peak = 0, sum = 0;
  for (let n = 0; n < samples.length; n++) {
    peak = Math.max(peak, Math.abs(samples[n]));
    sum += samples[n] ** 2;
    if ((n + 1) % frame === 0) {
      energies.push(sum / frame);
      sum = 0;
    }
  }
  if (!energies.length && samples.length) energies.push(sum / samples.length);
  const top = energies.reduce((a, b) => Math.max(a, b), 0);
  if (top <= 0) return Math.fround(Math.max(1, peak));
  const active = energies.filter((e) => e > top / 10 ** (ACTIVE_DB / 10));
  const level = Math.sqrt(active.reduce((a, b) => a + b, 0) / active.length);
  return Math.fround(Math.max(level / 10 ** (NETWORK_DBFS / 20), peak, 1e-6));
}

/** A gain for each frame of a live signal from this frame and those before it; exactly 1 at usual levels. */
export class LevelControl {
  static USUAL = [-27, -5];  // dBFS, mean square of the loudest frames
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
