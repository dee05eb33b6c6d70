/** Max difference between the clocks of two hosts. A time further in the future is ignored. */
const CLOCK_SKEW_MS = 3_600_000;
/** Max bytes that a file system may preallocate behind a file, in addition to its size. */
const MAX_SPARE_BYTES = 2 ** 26;
const BLOCK_BYTES = 4096;

/**
 * Validates a time reported by a file system or another process.
 *
 * @returns Milliseconds since 1970; `undefined` if the time is absent, invalid, before 1970 or in
 * the future.
 */
export function knownTime(
  time: Date | number | null | undefined,
  now: number = Date.now(),
): number | undefined {
  const ms = Number(time ?? NaN);
  return ms >= 0 && ms <= now + CLOCK_SKEW_MS ? ms : undefined;
}

/** Modification time of a file, in milliseconds since 1970; 0 if unknown. */
export function usedAtOf({ mtime }: Pick<Deno.FileInfo, "mtime">): number {
  return knownTime(mtime) ?? 0;
}

/** Size of a file in bytes; 0 if the file system reports no safe integer. */
export function sizeOf({ size }: Pick<Deno.FileInfo, "size">): number {
  return knownCount(size) ?? 0;
}

/** Bytes on disk that a file of `size` bytes will take. */
export function diskBytesFor(size: number): number {
  return Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
}

/** Bytes that a file takes on disk; derived from its size if the file system reports none. */
export function diskBytesOf(info: Pick<Deno.FileInfo, "size" | "blocks">): number {
  const size = sizeOf(info);
  const allocated = 512 * (knownCount(info.blocks) ?? 0);
  const isKnown = allocated > 0 && allocated <= 2 * diskBytesFor(size) + MAX_SPARE_BYTES;
  return isKnown ? allocated : diskBytesFor(size);
}

/** Bytes that removing a file frees: never more than were reserved for it. */
export function freedBytesOf(info: Pick<Deno.FileInfo, "size" | "blocks">): number {
  return Math.min(diskBytesOf(info), diskBytesFor(sizeOf(info)));
}

/** Validates a count or byte number from outside; `undefined` unless a safe integer from 0 on. */
export function knownCount(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : undefined;
}
