// The microphone, live: AudioContext, worklet and the line between worklet and worker.

const CHUNK_SECONDS = 0.01;
const MARGIN_SECONDS = 0.04;  // for computing and for a worker that is woken late
const PREFERRED_RATE = 48000;  // a whole multiple of 16 kHz: short resampling filters

export class Live {
  /**
   * Start; asks for the microphone.
   *
   * @param denoiser a Denoiser
   * @param workletUrl address of worklet.js
   * @param {{listen?: boolean, onPiece?, onState?, marginSeconds?: number, backlogSeconds?: number}} options
   *   onPiece({dry, wet, late, blocks}) gets what was played, in order; onState({rtf, backlog}, {overload: true, rtf, backlog}
   *   or {failure: text}) what the worker says; marginSeconds is added to the delay, backlogSeconds of waiting sound count as overload
   */
  static async start(denoiser, workletUrl, options = {}) {
    const live = new Live();
    const constraints = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    live.stream = await navigator.mediaDevices.getUserMedia({ audio: constraints });
    try {
      await live.#connect(denoiser, workletUrl, options);
    } catch (error) {
      await live.stop();
      throw error;
    }
    return live;
  }

  async #connect(denoiser, workletUrl, { listen = false, onPiece, onState, marginSeconds = MARGIN_SECONDS, backlogSeconds }) {
    this.denoiser = denoiser;
    let source;
    for (const options of [{ sampleRate: PREFERRED_RATE, latencyHint: "interactive" }, { latencyHint: "interactive" }]) {
      this.context = new AudioContext(options);
      try {
        source = this.context.createMediaStreamSource(this.stream);
        break;
      } catch (error) {  // some browsers join a microphone only to a context of its own rate
        await this.context.close();
        if (!options.sampleRate) throw error;
      }
    }
    const { context } = this, rate = context.sampleRate;
    await context.audioWorklet.addModule(workletUrl);
    const { port1, port2 } = new MessageChannel();
    denoiser.onLive = (state) => {
      if (state.overload || state.failure) this.node.port.postMessage({ bypass: true });
      onState?.(state);
    };
    const { delaySamples } = await denoiser.live(port1, rate, backlogSeconds);
    const chunk = Math.round(CHUNK_SECONDS * rate);
    const delay = delaySamples + chunk + Math.round(marginSeconds * rate);
    this.node = new AudioWorkletNode(context, "dccrn-denoiser", {
      numberOfInputs: 1,
      outputChannelCount: [1],
      processorOptions: { delay, chunk },
    });
    this.node.port.onmessage = ({ data }) => onPiece?.(data);
    this.node.port.postMessage({ worker: port2 }, [port2]);
    this.volume = new GainNode(context, { gain: listen ? 1 : 0 });
    source.connect(this.node).connect(this.volume).connect(context.destination);
    await context.resume();
    this.sampleRate = rate;
    this.delaySeconds = delay / rate;
  }

  /** From microphone to loudspeaker in seconds, as far as the browser tells. */
  get latencySeconds() {
    return this.delaySeconds + (this.context.baseLatency || 0) + (this.context.outputLatency || 0);
  }

  listen(on) {
    this.volume.gain.setTargetAtTime(on ? 1 : 0, this.context.currentTime, 0.02);
  }

  set(options) {
    this.node.port.postMessage(options);
  }

  async stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.node?.port.postMessage({ stop: true });
    if (this.denoiser) {
      this.denoiser.onLive = null;
      await this.denoiser.stopLive();
    }
    if (this.context && this.context.state !== "closed") await this.context.close();
  }
}
