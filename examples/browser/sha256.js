// Compares a download with a file, a window at a time, so that files larger than the memory can be compared.

/** How many bytes are compared at a time. */
const WINDOW = 8 * 1024 * 1024;

/** Whether the download at `url` has the bytes of `file`: compares the SHA-256 of each window. */
export async function isIdentical(file, url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`the download failed with status ${response.status}`);
  const reader = response.body.getReader();
  const window = new Uint8Array(WINDOW);
  let [offset, filled] = [0, 0];
  const isSame = async () => {
    const expected = await file.slice(offset, offset + filled).arrayBuffer();
    const [left, right] = await Promise.all([digest(expected), digest(window.subarray(0, filled))]);
    offset += filled;
    filled = 0;
    return left.every((byte, index) => byte === right[index]);
  };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return offset + filled === file.size && isSame();
    for (let rest = value; rest.length > 0; ) {
      const piece = rest.subarray(0, WINDOW - filled);
      window.set(piece, filled);
      filled += piece.length;
      rest = rest.subarray(piece.length);
      if (filled === WINDOW && !(await isSame())) {
        await reader.cancel();
        return false;
      }
    }
  }
}

async function digest(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}
