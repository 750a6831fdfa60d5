export { enhance } from "./engine.js";
export { levelScale, LevelControl } from "./level.js";
export { readMetadata } from "./metadata.js";
export { resample, StreamingResampler } from "./resample.js";
export { sniffSampleRate } from "./container.js";
export { STFT } from "./stft.js";
export { StreamingEnhancer } from "./streaming.js";
export { encodeWav } from "./wav.js";
