// Arrays as the bytes of an .npz: members are stored, not packed.

const DESCR = { float32: "<f4", int64: "<i8" };
const TEXT = new TextEncoder();
const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  let value = n;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});
const DAY = 33; // 1980-01-01, as zip counts: the same arrays give the same bytes

/** `arrays`: a Map of {dtype, shape, data} by name; float32 and int64 alone. */
export function writeNpz(arrays) {
  const [files, entries] = [[], []];
  let offset = 0;
  for (const [name, array] of arrays) {
    const title = TEXT.encode(`${name}.npy`);
    const content = npy(array);
    const facts = header(title, crc32(content), content.length);
    const local = concat([Uint8Array.of(0x50, 0x4b, 3, 4), facts, title]);
    const place = new DataView(new ArrayBuffer(14)); // no comment, disk 0, no attributes; where
    place.setUint32(10, offset, true);
    const central = [Uint8Array.of(0x50, 0x4b, 1, 2, 20, 0), facts, new Uint8Array(place.buffer), title];
    files.push(local, content);
    entries.push(concat(central));
    offset += local.length + content.length;
  }
  const directory = concat(entries);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, entries.length, true);
  end.setUint16(10, entries.length, true);
  end.setUint32(12, directory.length, true);
  end.setUint32(16, offset, true);
  return concat([...files, directory, new Uint8Array(end.buffer)]);
}

/** What both headers of a member share: version, method, date, sum, sizes, lengths of texts. */
function header(title, sum, size) {
  const view = new DataView(new ArrayBuffer(26));
  view.setUint16(0, 20, true);
  view.setUint16(2, 0x800, true); // the name is UTF-8
  view.setUint16(8, DAY, true);
  view.setUint32(10, sum, true);
  view.setUint32(14, size, true);
  view.setUint32(18, size, true);
  view.setUint16(22, title.length, true);
  return new Uint8Array(view.buffer);
}

function npy({ dtype, shape, data }) {
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const facts = `{'descr': '${DESCR[dtype]}', 'fortran_order': False, 'shape': (${sizes}), }`;
  const text = `${facts.padEnd(Math.ceil((facts.length + 11) / 64) * 64 - 11)}\n`;
  const head = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, text.length & 255, text.length >> 8);
  return concat([head, TEXT.encode(text), new Uint8Array(data.buffer, data.byteOffset, data.byteLength)]);
}

function crc32(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = CRC[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

function concat(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
