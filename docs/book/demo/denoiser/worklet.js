// The sound end of a live stream, in the audio thread. Microphone samples go to the worker in chunks; every sample is
// played `delay` samples after it came, enhanced if its enhanced twin has arrived and unprocessed if not, so a machine
// that is too slow gives the microphone instead of gaps. Both are the same moment of sound, so a fade between them is
// no jump.

const RING = 1 << 20;  // samples, 21 s at 48 kHz
const FADE_SECONDS = 0.005;

class DenoiserProcessor extends AudioWorkletProcessor {
  constructor({ processorOptions: { delay, chunk } }) {
    super();
    Object.assign(this, { delay, chunk });
    this.dry = new Float32Array(RING);
    this.wet = new Float32Array(RING);
    this.received = this.arrived = 0;  // samples of the microphone, of the worker
    this.piece = new Float32Array(chunk);
    this.filled = 0;
    this.gain = 0;  // of the enhanced sound now: 0 while it is late
    this.strength = this.amount = 1;  // asked for, and on its way there
    this.bypass = false;
    this.lateBlocks = this.blocks = 0;
    this.log = 0;
    this.fade = Math.round(FADE_SECONDS * sampleRate);
    this.port.onmessage = ({ data }) => {
      if (data.worker) {
        this.worker = data.worker;
        this.worker.onmessage = (message) => this.take(message.data);
      }
      if ("strength" in data) this.strength = data.strength;
      if ("bypass" in data) this.bypass = data.bypass;
      if (data.stop) this.stopped = true;
    };
    this.open = { dry: new Float32Array(2048), wet: new Float32Array(2048) };
  }

  take({ start, samples }) {
    for (let n = 0; n < samples.length; n++) this.wet[(start + n) % RING] = samples[n];
    this.arrived = start + samples.length;
  }

  process([input], [output]) {
    if (this.stopped) return false;
    if (!this.worker) return true;  // silence until the line stands
    const out = output[0], size = out.length;
    for (let n = 0; n < size; n++) {
      let sample = 0;
      for (const channel of input) sample += channel[n] / input.length;
      this.dry[(this.received + n) % RING] = sample;
      this.piece[this.filled++] = sample;
      if (this.filled === this.chunk) {
        this.worker.postMessage(this.piece, [this.piece.buffer]);
        this.piece = new Float32Array(this.chunk);
        this.filled = 0;
      }
    }
    const first = this.received - this.delay;  // number of the first sample that is due now
    this.received += size;
    const late = first >= 0 && this.arrived < first + size + this.fade;
    if (first >= 0) {
      this.blocks += 1;
      this.lateBlocks += late ? 1 : 0;
    }
    const wanted = late || this.bypass || first < 0 ? 0 : 1, step = 1 / this.fade;
    for (let n = 0; n < size; n++) {
      this.gain += Math.min(Math.max(wanted - this.gain, -step), step);
      const index = first + n;
      const dry = index < 0 ? 0 : this.dry[index % RING];
      const wet = index < 0 || index >= this.arrived ? dry : this.wet[index % RING];
      const heard = dry + this.gain * (wet - dry);
      this.amount += Math.min(Math.max(this.strength - this.amount, -step), step);
      out[n] = dry + this.amount * (heard - dry);
      if (index >= 0) this.keep(dry, heard);
    }
    for (let c = 1; c < output.length; c++) output[c].set(out);
    return true;
  }

  /** What was due and what was played at full strength, sent to the page in pieces. */
  keep(dry, wet) {
    this.open.dry[this.log] = dry;
    this.open.wet[this.log++] = wet;
    if (this.log < this.open.dry.length) return;
    const { dry: a, wet: b } = this.open;
    this.port.postMessage({ dry: a, wet: b, late: this.lateBlocks, blocks: this.blocks }, [a.buffer, b.buffer]);
    this.open = { dry: new Float32Array(2048), wet: new Float32Array(2048) };
    this.log = this.lateBlocks = this.blocks = 0;
  }
}

registerProcessor("dccrn-denoiser", DenoiserProcessor);
