// What the page holds: words as JSON, and arrays as bytes in base64.
// `packing.py` writes the arrays.

const textOf = (id) => document.getElementById(id).textContent;

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// The sum is looked at where the browser allows it: a page that was cut short by mail
// would draw wrong pictures.
async function isWhole(bytes, sha256) {
  if (!globalThis.crypto?.subtle) return true;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0"));
  return hex.join("") === sha256;
}

const sizeOf = (shape) => shape.reduce((product, count) => product * count, 1);

// Slices, since a view needs an offset that is a multiple of four.
const floats = (bytes) => new Float32Array(bytes.slice().buffer);

function bitsOf(bytes, [count, width]) {
  const bits = new Uint8Array(count * width);
  const stride = Math.ceil(width / 8);
  for (let row = 0; row < count; row += 1) {
    for (let i = 0; i < width; i += 1) {
      const byte = bytes[row * stride + (i >> 3)];
      bits[row * width + i] = (byte >> (7 - (i & 7))) & 1;
    }
  }
  return bits;
}

// A row is integers of `size` bytes times its scale.
function rowsOf(bytes, [count, width], size) {
  const scales = floats(bytes.subarray(0, 4 * count));
  const values = new Float32Array(count * width);
  const unused = 32 - 8 * size;
  let at = 4 * count;
  for (let row = 0; row < count; row += 1) {
    for (let i = 0; i < width; i += 1) {
      let integer = 0;
      for (let byte = 0; byte < size; byte += 1) integer |= bytes[at++] << (8 * byte);
      values[row * width + i] = ((integer << unused) >> unused) * scales[row];
    }
  }
  return values;
}

function arrayOf(bytes, { kind, shape, bytes: size }) {
  if (kind === "rows") return rowsOf(bytes, shape, size);
  if (kind === "bits") return bitsOf(bytes, shape);
  return kind === "float32" ? floats(bytes) : bytes;
}

// Returns the words, with `arrays` by name in place of their directory.
async function readContents() {
  const words = JSON.parse(textOf("words"));
  const bytes = bytesOf(textOf("data").trim());
  if (!(await isWhole(bytes, words.sha256))) {
    throw new Error(
      "This file is damaged: its numbers are not those that were written.",
    );
  }
  const arrays = {};
  for (const [name, entry] of Object.entries(words.arrays)) {
    const part = bytes.subarray(entry.offset, entry.offset + entry.size);
    arrays[name] = arrayOf(part, entry);
    if (arrays[name].length !== sizeOf(entry.shape)) {
      throw new Error(`This file is damaged: ${name} has another size.`);
    }
  }
  return { ...words, arrays };
}
