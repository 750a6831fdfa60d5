// The sampling rate that a sound file states, so that it can be decoded without a change of rate: a browser's decoder
// resamples to the rate of its AudioContext and does not say what the file had.

const ascii = (bytes, at, length) => String.fromCharCode(...bytes.subarray(at, at + length));

const MP3_RATES = { 3: [44100, 48000, 32000], 2: [22050, 24000, 16000], 0: [11025, 12000, 8000] };

/** Hz of a WAV, FLAC, Ogg (Vorbis, Opus, FLAC) or MP3 file; null where it is not known. */
export function sniffSampleRate(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const flac = (at) => (view.getUint32(at) >>> 12) || null;  // 20 bits
  if (bytes.length < 64) return null;
  if (ascii(bytes, 0, 4) === "RIFF" && ascii(bytes, 8, 4) === "WAVE") {
    for (let at = 12; at + 16 <= bytes.length; at += 8 + view.getUint32(at + 4, true) + (view.getUint32(at + 4, true) & 1)) {
      if (ascii(bytes, at, 4) === "fmt ") return view.getUint32(at + 12, true) || null;
    }
    return null;
  }
  if (ascii(bytes, 0, 4) === "fLaC") return flac(18);
  if (ascii(bytes, 0, 4) === "OggS") {
    const packet = 27 + bytes[26];  // header and its segment table
    if (packet + 32 > bytes.length) return null;
    if (ascii(bytes, packet + 1, 6) === "vorbis") return view.getUint32(packet + 12, true) || null;
    if (ascii(bytes, packet, 8) === "OpusHead") return 48000;
    if (ascii(bytes, packet + 1, 4) === "FLAC") return flac(packet + 9 + 4 + 4 + 10);
    return null;
  }
  let at = 0;
  if (ascii(bytes, 0, 3) === "ID3") at = 10 + [6, 7, 8, 9].reduce((sum, i) => sum * 128 + (bytes[i] & 127), 0);
  if (at + 4 <= bytes.length && bytes[at] === 0xff && (bytes[at + 1] & 0xe6) === 0xe2) {  // layer III
    return MP3_RATES[(bytes[at + 1] >> 3) & 3]?.[(bytes[at + 2] >> 2) & 3] ?? null;
  }
  return null;
}
