import type { AdapterObject } from "../../src/adapter/contract.ts";
import { writeParts } from "../../src/base/byte_parts.ts";

/** An object in several values: consecutive parts of one size, of which the last may be shorter. */
export interface SplitValue {
  /** Bytes of all parts together. */
  readonly byteLength: number;
  /** Bytes of each part but the last. */
  readonly partBytes: number;
  /** Number of parts. */
  readonly count: number;
}

/** One part of a {@linkcode SplitValue}: its number, and its bytes in the object. */
export interface ValuePart {
  readonly index: number;
  readonly start: number;
  readonly end: number;
}

/**
 * Runs `work` for each part, `atATime` of them at once. After a failure no more are started, and
 * the signals of the others abort.
 *
 * @throws The first failure, once all have settled: none uses the caller's buffers any more.
 */
export async function forEachPart(
  { byteLength, partBytes, count }: SplitValue,
  atATime: number,
  signal: AbortSignal,
  work: (part: ValuePart, signal: AbortSignal) => Promise<unknown>,
): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const failures: unknown[] = [];
  let next = 0;
  const run = async (): Promise<void> => {
    while (next < count && failures.length === 0) {
      const index = next++;
      const start = index * partBytes;
      try {
        await work({ index, start, end: Math.min(byteLength, start + partBytes) }, either);
      } catch (error) {
        failures.push(error);
        stop.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(atATime, count) }, run));
  if (failures.length > 0) throw failures[0];
}

/** Operations of {@linkcode writeSplit}. */
export interface SplitWrite {
  readonly writePart: (part: ValuePart, signal: AbortSignal) => Promise<unknown>;
  /** Publishes the manifest; returns whether the object is visible. */
  readonly publish: () => Promise<boolean>;
  readonly removeParts: () => Promise<unknown>;
  /** Whether a failure leaves no manifest, so that the parts can be removed. */
  readonly isRefusal: (error: unknown) => boolean;
}

/**
 * Writes the parts of an object, then publishes its manifest: the object becomes visible completely
 * or not at all. Nothing is published after `signal` aborts.
 *
 * @returns Whether the object was published.
 * @throws If a part or the manifest cannot be written, or `signal` aborts.
 */
export async function writeSplit(
  split: SplitValue,
  atATime: number,
  signal: AbortSignal,
  { writePart, publish, removeParts, isRefusal }: SplitWrite,
): Promise<boolean> {
  try {
    await forEachPart(split, atATime, signal, writePart);
    signal.throwIfAborted();
    const isPublished = await publish();
    if (!isPublished) await removeParts();
    return isPublished;
  } catch (error) {
    if (isRefusal(error)) await removeParts();
    throw error;
  }
}

/** Reads the parts of an object into its buffers; returns whether all were there, and complete. */
export async function readSplit(
  split: SplitValue,
  atATime: number,
  signal: AbortSignal,
  parts: AdapterObject["parts"],
  readPart: (index: number, signal: AbortSignal) => Promise<Uint8Array | string | undefined>,
): Promise<boolean> {
  let isWhole = true;
  await forEachPart(split, atATime, signal, async ({ index, start, end }, stop) => {
    const bytes = isWhole ? await readPart(index, stop) : undefined;
    if (typeof bytes === "object" && bytes.byteLength === end - start) {
      if (!signal.aborted) writeParts(parts, start, bytes);
    } else isWhole = false;
  });
  return isWhole;
}
