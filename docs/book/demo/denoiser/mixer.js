// Noisy and enhanced from one playhead: two sources that start together, two gains that are cross-faded.

const FADE_SECONDS = 0.03;

/** What is heard: gains of (noisy, enhanced). strength 0 ... 1 mixes the enhanced sound with the noisy one. */
export const gainsFor = ({ enhanced, strength }) => (enhanced ? [1 - strength, strength] : [1, 0]);

/** (1 - strength) noisy + strength enhanced, channel by channel; the two are aligned sample by sample. */
export const mix = (noisy, enhanced, strength) =>
  noisy.map((x, c) => x.map((value, n) => (1 - strength) * value + strength * enhanced[c][n]));

export class Mixer {
  /** @param {BaseAudioContext} context @param {AudioBuffer[]} buffers noisy and enhanced */
  constructor(context, buffers, state, onEnded) {
    this.context = context;
    this.gains = gainsFor(state).map((gain) => new GainNode(context, { gain }));
    this.sources = buffers.map((buffer, i) => {
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(this.gains[i]).connect(context.destination);
      return source;
    });
    this.sources[0].onended = onEnded;
  }

  start(when, offset) {
    for (const source of this.sources) source.start(when, offset);
  }

  stop() {
    this.sources[0].onended = null;
    for (const source of this.sources) source.stop();
    for (const gain of this.gains) gain.disconnect();
  }

  /** Cross-fade to another state from context time `at` on. */
  set(state, at = this.context.currentTime) {
    gainsFor(state).forEach((target, i) => {
      const { gain } = this.gains[i];
      gain.cancelScheduledValues(at);
      gain.setValueAtTime(gain.value, at);
      gain.linearRampToValueAtTime(target, at + FADE_SECONDS);
    });
  }
}
