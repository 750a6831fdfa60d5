// What an ONNX file says of itself: ModelProto.metadata_props (field 14), read from the protobuf bytes, since
// ONNX Runtime Web does not hand it out.

function varint(bytes, at) {
  let value = 0, factor = 1, byte;
  do {
    byte = bytes[at++];
    value += (byte & 127) * factor;
    factor *= 128;
  } while (byte & 128);
  return [value, at];
}

/** [field number, start, end] of each length-delimited field; other wire types are passed over. */
function* fields(bytes, at, end) {
  while (at < end) {
    let tag, size;
    [tag, at] = varint(bytes, at);
    const wire = tag % 8;
    if (wire === 0) [, at] = varint(bytes, at);
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else if (wire === 2) {
      [size, at] = varint(bytes, at);
      yield [Math.floor(tag / 8), at, at + size];
      at += size;
    } else throw new Error("this is not an ONNX file");
  }
}

/** {key: value} of the file's metadata, all text. */
export function readMetadata(bytes) {
  const text = new TextDecoder(), metadata = {};
  for (const [number, start, end] of fields(bytes, 0, bytes.length)) {
    if (number !== 14) continue;
    const entry = {};
    for (const [part, from, to] of fields(bytes, start, end)) entry[part] = text.decode(bytes.subarray(from, to));
    metadata[entry[1]] = entry[2] ?? "";
  }
  return metadata;
}
