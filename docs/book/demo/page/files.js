// Files in and out, and the program's own large files.

import { sniffSampleRate } from "../denoiser/index.js";
import workerSource from "source:../denoiser/worker.js";
import workletSource from "source:../denoiser/worklet.js";

const FALLBACK_RATE = 48000;
export const LIMIT_SECONDS = 15 * 60;
const LIMIT_BYTES = 400e6;

/** An error whose message is meant for the visitor. */
export class Told extends Error {}

const blobUrl = (source) => URL.createObjectURL(new Blob([source], { type: "text/javascript" }));

// From file:// a browser takes neither worker files nor fetch; text in a classic script works there as everywhere.
export const newWorker = () => new Worker(blobUrl(workerSource));
// Chromium loads no worklet from a blob of a page that was opened from disk, but takes it from a data URL.
export const workletUrl = () =>
  location.protocol === "file:" ? `data:text/javascript,${encodeURIComponent(workletSource)}` : blobUrl(workletSource);

/** Load a classic script of this folder that sets globalThis[name]. */
export function loadScript(file, name) {
  if (globalThis[name]) return Promise.resolve(globalThis[name]);
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = file;
    script.onload = () => resolve(globalThis[name]);
    script.onerror = () => {
      script.remove();
      reject(new Told(`${file} could not be loaded. Check the connection, or that the whole folder was copied, and try again.`));
    };
    document.head.append(script);
  });
}

/** What this browser lacks, or null. */
export function missing() {
  const needed = { WebAssembly: "WebAssembly", Worker: "workers", DecompressionStream: "DecompressionStream", OfflineAudioContext: "Web Audio" };
  const lacking = Object.keys(needed).filter((name) => !(name in globalThis)).map((name) => needed[name]);
  return lacking.length ? `This browser lacks ${lacking.join(" and ")}. A current Firefox, Chrome, Edge or Safari has it.` : null;
}

/** File or Blob -> {channels, sampleRate}: decoded by the browser at the file's own rate where the file states it. */
export async function decode(file, name) {
  if (file.size > LIMIT_BYTES) throw new Told(`${name} is larger than ${LIMIT_BYTES / 1e6} MB; cut it and try again.`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (!bytes.length) throw new Told(`${name} is empty.`);
  const rates = [sniffSampleRate(bytes), FALLBACK_RATE].filter(Boolean);
  let context;
  for (const rate of rates) {
    try {
      context = new OfflineAudioContext(1, 1, rate);
      break;
    } catch (error) {
      if (error.name !== "NotSupportedError" || rate === FALLBACK_RATE) throw error;
    }
  }
  let buffer;
  try {
    buffer = await context.decodeAudioData(bytes.buffer);
  } catch {
    throw new Told(`${name} cannot be decoded as sound by this browser. WAV, MP3, FLAC, Ogg and M4A usually can be.`);
  }
  if (!buffer.length) throw new Told(`${name} holds no sound.`);
  if (buffer.duration > LIMIT_SECONDS) {
    throw new Told(`${name} lasts ${Math.round(buffer.duration / 60)} minutes; this page takes up to ${LIMIT_SECONDS / 60}. Cut it, or use the command line.`);
  }
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c).slice());
  return { channels, sampleRate: buffer.sampleRate };
}

export const monoOf = (channels) =>
  channels.length === 1 ? channels[0] : channels[0].map((_, n) => channels.reduce((sum, c) => sum + c[n], 0) / channels.length);

export function download(bytes, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
