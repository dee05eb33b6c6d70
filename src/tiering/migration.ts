import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { AdapterObject, ListedObject } from "../l2/adapter.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { countThatFit, packObjects, type StagingPool } from "../memory/staging_pool.ts";

/** Bytes that are copied as one batch. */
const BATCH_BYTES = 8 * 2 ** 20;
/** Objects that are copied as one batch. */
const BATCH_OBJECTS = 256;

/** What a migration did. */
export interface MigrationReport {
  /** Objects that were copied. */
  readonly copiedObjects: number;
  /** Their bytes. */
  readonly copiedBytes: number;
  /** Objects that were not copied, because another adapter had them already. */
  readonly presentObjects: number;
  /** Objects that no other adapter has: they could not be read, or nobody took them. */
  readonly failedObjects: number;
}

/** What a migration needs. */
export interface MigrationOptions {
  /** Whose objects are copied. */
  readonly from: AdapterGuard;
  /** Who is to have them now. */
  readonly to: () => readonly AdapterGuard[];
  /** Host memory. */
  readonly scratch: StagingPool<Uint8Array<ArrayBuffer>>;
  /** Aborts to give up. */
  readonly signal: AbortSignal;
  /** Whether an object is being forgotten: it is not copied. */
  readonly isBlocked: (key: ObjectKey) => boolean;
  /** Told of each batch when it begins. */
  readonly track: (work: Promise<void>) => void;
}

type Counts = { -readonly [Name in keyof MigrationReport]: number };

/** Objects to be copied, and which of them each of the other adapters had before. */
interface MigrationBatch {
  readonly objects: readonly ListedObject[];
  readonly to: readonly AdapterGuard[];
  readonly present: readonly Bitmap[];
}

/**
 * Copies what one adapter holds to the others, as far as they lack it.
 *
 * @throws {Error} If the objects could not be listed to the end.
 * @throws The reason of `options.signal` if that aborts.
 */
export async function migrate(options: MigrationOptions): Promise<MigrationReport> {
  const { from, scratch, signal, track } = options;
  const counts = { copiedObjects: 0, copiedBytes: 0, presentObjects: 0, failedObjects: 0 };
  const listed: ListedObject[] = [];
  let bytes = 0;
  const copy = async (): Promise<void> => {
    bytes = 0;
    while (listed.length > 0) {
      const sizes = listed.map(({ byteLength }) => byteLength);
      const fitting = countThatFit(sizes, scratch.blockBytes, scratch.capacityBytes);
      const copying = copyBatch(options, listed.splice(0, Math.max(1, fitting)), counts);
      track(copying);
      await copying;
    }
  };
  let isComplete = true;
  const onIncomplete = (): void => void (isComplete = false);
  for await (const { loadBytes, ...found } of from.list({ signal, onIncomplete })) {
    const object = { ...found, byteLength: loadBytes ?? found.byteLength };
    if (bytes + object.byteLength > BATCH_BYTES || listed.length === BATCH_OBJECTS) await copy();
    listed.push(object);
    bytes += object.byteLength;
  }
  signal.throwIfAborted();
  await copy();
  if (!isComplete) throw new Error("Its objects could not be listed to the end: call again");
  return counts;
}

/** Copies objects that fit into the host memory together, or a single one. */
async function copyBatch(
  options: MigrationOptions,
  listed: readonly ListedObject[],
  counts: Counts,
): Promise<void> {
  const { signal, isBlocked } = options;
  const to = options.to();
  // Who forgets objects waits for the batches that began before.
  const objects = listed.filter(({ key }) => !isBlocked(key));
  const keys = objects.map(({ key }) => key);
  const present = await Promise.all(to.map(async (guard) => {
    const found = await guard.lookup(keys, { prefix: false, signal });
    guard.unlock(found.gather(keys));
    return found;
  }));
  signal.throwIfAborted();
  const { copied, gone } = await copyLacking(options, { objects, to, present });
  for (const [i, { byteLength }] of objects.entries()) {
    if (copied.test(i)) {
      counts.copiedObjects++;
      counts.copiedBytes += byteLength;
    } else if (present.some((bits) => bits.test(i))) {
      counts.presentObjects++;
    } else if (!gone.test(i)) {
      counts.failedObjects++;
    }
  }
}

/** Copies what others lack: says what at least one took, and what is not there any more. */
async function copyLacking(
  { from, scratch, signal }: MigrationOptions,
  { objects, to, present }: MigrationBatch,
): Promise<{ copied: Bitmap; gone: Bitmap }> {
  const copied = new Bitmap(objects.length);
  const gone = new Bitmap(objects.length);
  const lacks = (i: number, t: number): boolean =>
    takes(to[t], objects[i]) && present[t]?.test(i) === false;
  const lacking = [...objects.keys()].filter((i) => to.some((_, t) => lacks(i, t)));
  const sizes = lacking.map((i) => objects[i]?.byteLength ?? 0);
  const packing = packObjects(sizes, scratch.blockBytes);
  const count = packing.usedBytes.length;
  if (count === 0 || count * scratch.blockBytes > scratch.capacityBytes) return { copied, gone };

  using cleanup = new DisposableStack();
  const blocks = await scratch.acquire(count);
  let isAbandoned = false;
  cleanup.defer(() => isAbandoned ? scratch.discard(blocks) : scratch.release(blocks));
  const buffers = lacking.map((i, n): AdapterObject => ({
    ...objects[i] as ListedObject,
    parts: (packing.objects[n] ?? []).map((piece) =>
      (blocks[piece.block] as Uint8Array<ArrayBuffer>)
        .subarray(piece.byteOffset, piece.byteOffset + piece.byteLength)
    ),
  }));
  const before = from.unansweredCalls;
  const found = await from.lookup(buffers.map(({ key }) => key), { prefix: false, signal });
  // What an adapter that works does not have any more was removed on purpose, or evicted.
  const isSure = from.unansweredCalls === before && !signal.aborted;
  for (const [n, i] of lacking.entries()) if (isSure && !found.test(n)) gone.set(i);
  const indices = found.gather(lacking);
  const locked = found.gather(buffers);
  if (locked.length === 0) return { copied, gone };

  const { done, settled } = await from.loadAnyLayout(locked);
  isAbandoned = settled !== undefined;
  await Promise.all(to.map(async (guard, t) => {
    const chosen = done.indices().filter((n) => lacks(indices[n] as number, t));
    if (chosen.length === 0) return;
    const outcome = await guard.store(chosen.map((n) => locked[n] as AdapterObject));
    if (outcome.settled !== undefined) isAbandoned = true;
    for (const n of outcome.done.gather(chosen)) copied.set(indices[n] as number);
  }));
  return { copied, gone };
}

function takes(guard: AdapterGuard | undefined, object: ListedObject | undefined): boolean {
  const { maxObjectBytes = Infinity } = guard?.capabilities ?? {};
  return object !== undefined && object.byteLength <= maxObjectBytes;
}
