const PAGE_BYTES = 65_536;

/**
 * Zeros that begin at a page of memory. The kernel copies file content into them more than twice as
 * fast as into an array of JavaScript's own, which begins 16 bytes behind a page: such a copy takes
 * the slow path of processors whose fast one wants aligned addresses.
 *
 * @param byteLength How many bytes.
 */
export function alignedBytes(byteLength: number): Uint8Array<ArrayBuffer> {
  const pages = Math.ceil(byteLength / PAGE_BYTES);
  try {
    // The memory of WebAssembly is the only one that promises where it begins.
    const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages });
    if (buffer instanceof ArrayBuffer) return new Uint8Array(buffer, 0, byteLength);
  } catch {
    // Hosts limit how many memories there are.
  }
  return new Uint8Array(byteLength);
}
