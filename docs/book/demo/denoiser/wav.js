/** Channels (Float32Array each) -> bytes of a WAV file; "float" keeps every value, "pcm16" is lowered to fit. */
export function encodeWav(channels, sampleRate, format = "pcm16") {
  const float = format === "float", bytes = float ? 4 : 2, count = channels[0].length, width = channels.length;
  const view = new DataView(new ArrayBuffer(44 + count * width * bytes));
  const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + count * width * bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, float ? 3 : 1, true);
  view.setUint16(22, width, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, sampleRate * width * bytes, true);
  view.setUint16(32, width * bytes, true);
  view.setUint16(34, 8 * bytes, true);
  text(36, "data");
  view.setUint32(40, count * width * bytes, true);
  let peak = 1;
  if (!float) for (const channel of channels) for (let n = 0; n < count; n++) peak = Math.max(peak, Math.abs(channel[n]));
  for (let n = 0, at = 44; n < count; n++) {
    for (const channel of channels) {
      if (float) view.setFloat32(at, channel[n], true);
      else view.setInt16(at, Math.round((channel[n] / peak) * 32767), true);
      at += bytes;
    }
  }
  return new Uint8Array(view.buffer);
}
