// The thread that computes: loads ONNX Runtime Web and the model once, then enhances recordings and a live stream.
// client.js speaks with it.

import * as ort from "onnxruntime-web/wasm";

import { enhance } from "./engine.js";
import { LiveStream } from "./live-stream.js";
import { picture } from "./picture.js";
import { StreamingEnhancer } from "./streaming.js";

let enhancer, live;
const cancelled = new Set();

/** Bytes from bytes or base64 text, unpacked if they are gzip. */
async function unpacked(data) {
  const bytes = typeof data === "string" ? Uint8Array.from(atob(data), (c) => c.charCodeAt(0)) : new Uint8Array(data);
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const tasks = {
  async load({ wasm, model }) {
    const start = performance.now();
    ort.env.wasm.numThreads = 1;  // more need SharedArrayBuffer, which most servers' headers and file:// do not allow
    ort.env.wasm.wasmBinary = (await unpacked(wasm)).buffer;
    enhancer = await StreamingEnhancer.create(ort, await unpacked(model));
    const { sampleRate, latencySamples, hop, metadata } = enhancer;
    return { sampleRate, latencySamples, hop, metadata, seconds: (performance.now() - start) / 1000 };
  },

  async enhance({ id, channels, sampleRate }) {
    const start = performance.now(), signal = { get aborted() { return cancelled.has(id); } };
    let last = 0;
    const onProgress = (fraction) => {
      if (performance.now() - last < 50) return;
      last = performance.now();
      self.postMessage({ type: "progress", id, fraction });
    };
    const enhanced = await enhance(enhancer, channels, sampleRate, { onProgress, signal });
    if (!enhanced) return { cancelled: true };
    return { channels: enhanced, seconds: (performance.now() - start) / 1000 };
  },

  picture: async ({ samples, sampleRate, columns, reference }) => picture(samples, sampleRate, columns, reference),

  async live({ port, sampleRate, backlogSeconds }) {
    live?.stop();
    live = new LiveStream(enhancer.fork({ levelControl: true }), sampleRate, port, (state) =>
      self.postMessage({ type: "live", ...state }), backlogSeconds);
    return { delaySamples: live.delaySamples };
  },

  async stop() {
    live?.stop();
    live = null;
  },
};

// One task after the other: they share the session. Live pieces come through their own port.
let queue = Promise.resolve();
self.onmessage = ({ data }) => {
  if (data.type === "cancel") {
    cancelled.add(data.id);
    return;
  }
  const run = async () => {
    try {
      const answer = await tasks[data.type](data);
      const transfer = (answer?.channels ?? []).map((c) => c.buffer);
      self.postMessage({ type: "answer", id: data.id, answer }, transfer);
    } catch (error) {
      self.postMessage({ type: "failure", id: data.id, message: error?.message ?? String(error) });
    }
    cancelled.delete(data.id);
  };
  queue = queue.then(run);
};
