import { Bitmap } from "../keys/bitmap.ts";
import type { AdapterObject, ListedObject } from "../adapter/contract.ts";
import type { ForgetBarrier } from "../lifecycle/forget_barrier.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { loadBytesOf, loadListed } from "./load_listed.ts";
import { countThatFit, packObjects, type StagingPool } from "../memory/staging_pool.ts";

/** Maximum bytes of a batch. */
const BATCH_BYTES = 8 * 2 ** 20;
/** Maximum objects of a batch. */
const BATCH_OBJECTS = 256;

/** Result of a migration. */
export interface MigrationReport {
  /** Objects copied. */
  readonly copiedObjects: number;
  /** Bytes copied. */
  readonly copiedBytes: number;
  /** Objects not copied because another adapter already had them. */
  readonly presentObjects: number;
  /** Objects that could not be read, or that no other adapter accepted. */
  readonly failedObjects: number;
}

/** Options of {@linkcode migrate}. */
export interface MigrationOptions {
  readonly from: AdapterGuard;
  /** Adapters to copy to; called for each batch. */
  readonly to: () => readonly AdapterGuard[];
  /** Host memory for the batches. */
  readonly scratch: StagingPool<Uint8Array>;
  readonly signal: AbortSignal;
  /** Blocks objects that are being forgotten; forgets wait for the batches in flight. */
  readonly barrier: Pick<ForgetBarrier, "blocks" | "track">;
}

type Counts = { -readonly [Name in keyof MigrationReport]: number };

/** Objects to copy, the destinations, and which objects each destination already has. */
interface MigrationBatch {
  readonly objects: readonly ListedObject[];
  readonly to: readonly AdapterGuard[];
  readonly present: readonly Bitmap[];
}

/**
 * Copies the objects of one adapter to others that lack them.
 *
 * @throws {Error} If the listing is incomplete.
 * @throws The reason of `options.signal` if that aborts.
 */
export async function migrate(options: MigrationOptions): Promise<MigrationReport> {
  const { from, scratch, signal, barrier } = options;
  const counts = { copiedObjects: 0, copiedBytes: 0, presentObjects: 0, failedObjects: 0 };
  const listed: ListedObject[] = [];
  let bytes = 0;
  const copy = async (): Promise<void> => {
    bytes = 0;
    while (listed.length > 0) {
      const sizes = listed.map(({ byteLength }) => byteLength);
      const fitting = countThatFit(sizes, scratch.blockBytes, scratch.capacityBytes);
      await barrier.track(copyBatch(options, listed.splice(0, Math.max(1, fitting)), counts));
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
  if (!isComplete) throw new Error("Not all objects of the adapter could be listed: call again");
  return counts;
}

/** Copies one batch: objects that fit into the host memory together, or a single larger one. */
async function copyBatch(
  options: MigrationOptions,
  listed: readonly ListedObject[],
  counts: Counts,
): Promise<void> {
  const { signal, barrier } = options;
  const to = options.to();
  // A forget in progress waits for the batches that started before it.
  const objects = listed.filter(({ key }) => !barrier.blocks(key));
  const keys = objects.map(({ key }) => key);
  const present = await Promise.all(to.map(async (guard) => {
    const { done } = await guard.lookup(keys, { prefix: false, signal });
    guard.unlock(done.gather(keys));
    return done;
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

/**
 * Copies the objects that destinations lack. Returns which were stored by at least one destination
 * and which no longer exist in the source.
 */
async function copyLacking(
  { from, scratch, signal }: MigrationOptions,
  { objects, to, present }: MigrationBatch,
): Promise<{ copied: Bitmap; gone: Bitmap }> {
  const copied = new Bitmap(objects.length);
  const gone = new Bitmap(objects.length);
  const lacks = (i: number, t: number): boolean =>
    takes(to[t], objects[i]) && present[t]?.test(i) === false;
  const lacking = [...objects.keys()].filter((i) => to.some((_, t) => lacks(i, t)));
  const chosen = lacking.map((i) => objects[i] as ListedObject);
  if (chosen.length === 0 || !fits(chosen, scratch)) return { copied, gone };

  using read = await loadListed(from, chosen, { scratch, signal });
  gone.setAll(read.gone.gather(lacking));
  await Promise.all(to.map(async (guard, t) => {
    const wanted = read.loaded.indices().filter((n) => lacks(lacking[n] as number, t));
    if (wanted.length === 0) return;
    const outcome = await guard.store(wanted.map((n) => read.objects[n] as AdapterObject));
    if (outcome.settled !== undefined) read.abandon();
    for (const n of outcome.done.gather(wanted)) copied.set(lacking[n] as number);
  }));
  return { copied, gone };
}

function fits(
  objects: readonly ListedObject[],
  { blockBytes, capacityBytes }: StagingPool<Uint8Array>,
): boolean {
  const sizes = objects.map(loadBytesOf);
  return packObjects(sizes, blockBytes).usedBytes.length * blockBytes <= capacityBytes;
}

function takes(guard: AdapterGuard | undefined, object: ListedObject | undefined): boolean {
  const { maxObjectBytes = Infinity } = guard?.capabilities ?? {};
  return object !== undefined && object.byteLength <= maxObjectBytes;
}
