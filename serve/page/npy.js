// Reading .npy and .npz bytes, strictly: what cannot be read throws a FormatError that says why.

import { strides } from "./arrays.js";

export class FormatError extends Error {}

const TYPES = {
  "|b1": ["bool", Uint8Array],
  "|u1": ["uint8", Uint8Array],
  "|i1": ["int8", Int8Array],
  "<i2": ["int16", Int16Array],
  "<i4": ["int32", Int32Array],
  "<i8": ["int64", BigInt64Array],
  "<f4": ["float32", Float32Array],
  "<f8": ["float64", Float64Array],
};
const MAX_HEADER = 4096;
const MAX_MEMBERS = 64;
const MAX_BYTES = 2 ** 30;
const LATIN = new TextDecoder("latin1");
const UTF8 = new TextDecoder();

/** "npy", "npz" or null, by the first bytes; a file's name says nothing. */
export function kindOf(bytes) {
  if (begins(bytes, 0x93, "NUMPY")) return "npy";
  return begins(bytes, 0x50, "K") ? "npz" : null;
}

/** The array in .npy bytes, as {dtype, shape, data} in C order. */
export function readNpy(bytes) {
  const view = viewOf(bytes);
  if (bytes.length < 12 || !begins(bytes, 0x93, "NUMPY")) throw new FormatError("no .npy data");
  const width = { 1: 2, 2: 4, 3: 4 }[bytes[6]];
  if (!width) throw new FormatError(`.npy version ${bytes[6]} is not 1, 2 or 3`);
  const length = width === 2 ? view.getUint16(8, true) : view.getUint32(8, true);
  const start = 8 + width + length;
  if (length > MAX_HEADER || start > bytes.length) throw new FormatError(".npy header is cut short");
  const header = LATIN.decode(bytes.subarray(8 + width, start));
  const descr = /'descr': *'([^']*)'/.exec(header)?.[1];
  const order = /'fortran_order': *(True|False)/.exec(header)?.[1];
  const sizes = /'shape': *\(([0-9, ]*)\)/.exec(header)?.[1];
  if (descr === undefined || order === undefined || sizes === undefined) {
    throw new FormatError(".npy header is malformed, or of a structured type");
  }
  if (!TYPES[descr]) throw new FormatError(`.npy type ${descr} cannot be drawn here`);
  const [dtype, Values] = TYPES[descr];
  const shape = (sizes.match(/\d+/g) ?? []).map(Number);
  const wanted = shape.reduce((product, n) => product * n, 1) * Values.BYTES_PER_ELEMENT;
  if (bytes.length - start !== wanted) {
    throw new FormatError(`.npy needs ${wanted} bytes after its header, has ${bytes.length - start}`);
  }
  const data = new Values(bytes.slice(start).buffer); // a copy begins where any type may begin
  return { dtype, shape, data: order === "True" ? fromFortran(data, shape) : data };
}

/** The number of axes that the header of .npy bytes states; null where it cannot be read. */
export function axesOf(bytes) {
  const header = LATIN.decode(bytes.subarray(0, MAX_HEADER));
  const sizes = /'shape': *\(([0-9, ]*)\)/.exec(header)?.[1];
  return sizes === undefined ? null : (sizes.match(/\d+/g) ?? []).length;
}

/** The arrays in .npz bytes, a Map by name. */
export async function readNpz(bytes) {
  const arrays = new Map();
  let left = MAX_BYTES;
  for (const member of directory(bytes)) {
    if (!member.name.endsWith(".npy")) throw new FormatError(`.npz member ${member.name} is no .npy`);
    if (member.size > left) throw new FormatError(".npz inflates to more than 1 GiB");
    left -= member.size;
    arrays.set(member.name.slice(0, -4), readNpy(await unpack(bytes, member)));
  }
  return arrays;
}

/** The members that a zip's central directory lists. */
function directory(bytes) {
  const view = viewOf(bytes);
  const end = bytes.length - 22;
  if (end < 0 || view.getUint32(end, true) !== 0x06054b50) {
    throw new FormatError("not a zip, or cut short");
  }
  const entries = view.getUint16(end + 10, true);
  if (entries > MAX_MEMBERS) throw new FormatError(`.npz holds more than ${MAX_MEMBERS} members`);
  const members = [];
  let at = view.getUint32(end + 16, true);
  for (let i = 0; i < entries; i += 1) {
    if (at + 46 > end || view.getUint32(at, true) !== 0x02014b50) {
      throw new FormatError(".npz directory is damaged");
    }
    const [name, extra, comment] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
    members.push({
      name: UTF8.decode(bytes.subarray(at + 46, at + 46 + name)),
      method: view.getUint16(at + 10, true),
      packed: view.getUint32(at + 20, true),
      size: view.getUint32(at + 24, true),
      offset: view.getUint32(at + 42, true),
    });
    at += 46 + name + extra + comment;
  }
  return members;
}

async function unpack(bytes, member) {
  const view = viewOf(bytes);
  const at = member.offset;
  if (at + 30 > bytes.length || view.getUint32(at, true) !== 0x04034b50) {
    throw new FormatError(`.npz member ${member.name} is damaged`);
  }
  const start = at + 30 + view.getUint16(at + 26, true) + view.getUint16(at + 28, true);
  const packed = bytes.subarray(start, start + member.packed);
  let data = packed;
  if (member.method === 8) data = await inflate(packed, member);
  else if (member.method !== 0) {
    throw new FormatError(`.npz member ${member.name} is neither stored nor deflated`);
  }
  if (data.length !== member.size) {
    throw new FormatError(`.npz member ${member.name} is not as long as it says`);
  }
  return data;
}

/** At most as many bytes as the member says it has, and one more to tell that it has too many. */
async function inflate(packed, member) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const data = new Uint8Array(member.size);
  let filled = 0;
  try {
    for await (const chunk of chunks(stream)) {
      if (filled + chunk.length > data.length) return new Uint8Array(data.length + 1);
      data.set(chunk, filled);
      filled += chunk.length;
    }
  } catch {
    throw new FormatError(`.npz member ${member.name} is damaged`);
  }
  return data.subarray(0, filled);
}

async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Values in Fortran order, put into C order. */
function fromFortran(data, shape) {
  const result = new data.constructor(data.length);
  const to = strides(shape);
  const index = new Array(shape.length).fill(0);
  for (let from = 0; from < data.length; from += 1) {
    result[index.reduce((place, n, axis) => place + n * to[axis], 0)] = data[from];
    for (let axis = 0; axis < shape.length; axis += 1) {
      index[axis] += 1;
      if (index[axis] < shape[axis]) break;
      index[axis] = 0;
    }
  }
  return result;
}

function begins(bytes, first, rest) {
  return bytes[0] === first && LATIN.decode(bytes.subarray(1, 1 + rest.length)) === rest;
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
