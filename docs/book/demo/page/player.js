// The two versions of one sound, with one playhead.

import { Mixer } from "../denoiser/index.js";

export class Player {
  /** @param onChange called when playing starts, stops or ends */
  constructor(onChange) {
    this.onChange = onChange;
    this.state = { enhanced: true, strength: 1 };
    this.offset = 0;
    this.starting = null;  // a mark of its own for each start that waits for the sound card
  }

  /** @param noisy, enhanced channels of one rate and length */
  load(noisy, enhanced, sampleRate) {
    this.stop();
    this.context ??= new AudioContext();
    this.buffers = [noisy, enhanced].map((channels) => {
      const buffer = new AudioBuffer({ numberOfChannels: channels.length, length: channels[0].length, sampleRate });
      channels.forEach((samples, c) => buffer.copyToChannel(samples, c));
      return buffer;
    });
    this.offset = 0;
  }

  get seconds() {
    return this.buffers ? this.buffers[0].duration : 0;
  }

  get playing() {
    return Boolean(this.mixer);
  }

  /** Where the playhead is, in seconds. */
  get position() {
    return this.playing ? Math.min(this.offset + Math.max(0, this.context.currentTime - this.began), this.seconds) : this.offset;
  }

  async play() {
    if (!this.buffers || this.playing || this.starting) return;
    const mark = (this.starting = Symbol("start"));
    try {
      await this.context.resume();
      if (this.starting === mark) this.begin();
    } finally {
      if (this.starting === mark) this.starting = null;
    }
  }

  begin() {
    if (this.offset >= this.seconds - 0.01) this.offset = 0;
    this.mixer = new Mixer(this.context, this.buffers, this.state, () => {
      this.mixer = null;
      this.offset = this.seconds;
      this.onChange();
    });
    this.began = this.context.currentTime + 0.02;
    this.mixer.start(this.began, this.offset);
    this.onChange();
  }

  /** Stop where the playhead is; a start that still waits is called off. */
  pause() {
    this.starting = null;
    if (!this.playing) return;
    this.offset = this.position;
    this.mixer.stop();
    this.mixer = null;
    this.onChange();
  }

  stop() {
    this.pause();
    this.offset = 0;
  }

  async seek(seconds) {
    const restart = this.playing || Boolean(this.starting);
    this.pause();
    this.offset = Math.min(Math.max(seconds, 0), this.seconds);
    if (restart) await this.play();
  }

  set(state) {
    Object.assign(this.state, state);
    this.mixer?.set(this.state);
  }
}
