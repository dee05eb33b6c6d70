/** A time further ahead than this says nothing: the clocks of hosts differ, but not by more. */
const CLOCK_SKEW_MS = 3_600_000;
/** Bytes that file systems may reserve behind a file, beside as much as it has. */
const MOST_SPARE_BYTES = 2 ** 26;
const BLOCK_BYTES = 4096;

/**
 * A time that a file system or another process reports, in milliseconds since 1970.
 *
 * @returns `undefined` if it is absent, no date, before 1970 or in the future.
 */
export function knownTime(
  time: Date | number | null | undefined,
  now: number = Date.now(),
): number | undefined {
  const ms = Number(time ?? NaN);
  return ms >= 0 && ms <= now + CLOCK_SKEW_MS ? ms : undefined;
}

/** When a file was last written or used, in milliseconds since 1970; 0 if that is unknown. */
export function usedAtOf({ mtime }: Pick<Deno.FileInfo, "mtime">): number {
  return knownTime(mtime) ?? 0;
}

/** The size of a file, in bytes: a safe integer, whatever the file system reports. */
export function sizeOf({ size }: Pick<Deno.FileInfo, "size">): number {
  return knownCount(size) ?? 0;
}

/** Bytes that a file of a size takes on disk, before it is there. */
export function diskBytesFor(size: number): number {
  return Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
}

/** Bytes that a file takes on disk; where the file system does not tell, those of its size. */
export function diskBytesOf(info: Pick<Deno.FileInfo, "size" | "blocks">): number {
  const size = sizeOf(info);
  const allocated = 512 * (knownCount(info.blocks) ?? 0);
  const isKnown = allocated > 0 && allocated <= 2 * diskBytesFor(size) + MOST_SPARE_BYTES;
  return isKnown ? allocated : diskBytesFor(size);
}

/** Bytes that the removal of a file gives back: no more than were taken for it. */
export function freedBytesOf(info: Pick<Deno.FileInfo, "size" | "blocks">): number {
  return Math.min(diskBytesOf(info), diskBytesFor(sizeOf(info)));
}

/** A count or a number of bytes from outside: `undefined` unless it is a safe integer from 0. */
export function knownCount(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && Number(value) >= 0 ? Number(value) : undefined;
}
