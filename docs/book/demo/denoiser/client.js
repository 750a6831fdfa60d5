// The page's end of the worker: promises instead of messages.

export class Cancelled extends Error {}

export class Denoiser {
  /**
   * @param {Worker} worker runs worker.js
   * @param {{wasm, model}} files bytes (ArrayBuffer) or base64 text, plain or gzip
   */
  static async create(worker, files) {
    const denoiser = new Denoiser(worker);
    Object.assign(denoiser, await denoiser.#ask("load", files));
    return denoiser;
  }

  constructor(worker) {
    this.worker = worker;
    this.pending = new Map();
    this.next = 0;
    worker.onmessage = ({ data }) => {
      const task = this.pending.get(data.id);
      if (data.type === "progress") task?.onProgress?.(data.fraction);
      else if (data.type === "live") this.onLive?.(data);
      else {
        this.pending.delete(data.id);
        if (data.type === "failure") task.reject(new Error(data.message));
        else if (data.answer?.cancelled) task.reject(new Cancelled("cancelled"));
        else task.resolve(data.answer);
      }
    };
    worker.onerror = (event) => {
      for (const task of this.pending.values()) task.reject(new Error(event.message || "the worker could not start"));
      this.pending.clear();
    };
  }

  #ask(type, fields = {}, { onProgress, signal, transfer = [] } = {}) {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject, onProgress });
      signal?.addEventListener("abort", () => this.worker.postMessage({ type: "cancel", id }));
      this.worker.postMessage({ type, id, ...fields }, transfer);
    });
  }

  /** Channels (Float32Array each) at sampleRate Hz -> {channels, seconds of computing}; rejects with Cancelled. */
  enhance(channels, sampleRate, options = {}) {
    return this.#ask("enhance", { channels, sampleRate }, options);
  }

  /** See picture.js. */
  picture(samples, sampleRate, columns, reference) {
    return this.#ask("picture", { samples, sampleRate, columns, reference });
  }

  /** Start a live stream on a MessagePort -> {delaySamples}. */
  live(port, sampleRate, backlogSeconds) {
    return this.#ask("live", { port, sampleRate, backlogSeconds }, { transfer: [port] });
  }

  stopLive() {
    return this.#ask("stop");
  }
}
