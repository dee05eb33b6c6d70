import type { AdapterObject, ListedObject } from "../adapter/contract.ts";
import type { TrailerFault } from "../adapter/object_trailer.ts";
import { Bitmap } from "../keys/bitmap.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { AnswerStatus } from "../l2/guarded_answer.ts";
import { packObjects, type StagingPool } from "../memory/staging_pool.ts";

/** Options of {@linkcode loadListed}. */
export interface LoadListedOptions {
  /** Host memory for the objects. */
  readonly scratch: StagingPool<Uint8Array>;
  readonly signal: AbortSignal;
  /** Whether damaged objects stay in the adapter. @default {false} */
  readonly keepsDamaged?: boolean;
}

/** Objects in host memory, which is released on disposal. */
export interface LoadedObjects extends Disposable {
  /** The objects, in the order of the listing. */
  readonly objects: readonly AdapterObject[];
  /** Which of them are loaded and intact. */
  readonly loaded: Bitmap;
  /** Which of them the adapter no longer has. */
  readonly gone: Bitmap;
  /** Faults of those that are not what was stored, by index. */
  readonly faults: ReadonlyMap<number, TrailerFault>;
  /** How the calls went. */
  readonly status: AnswerStatus;
  /** Leaves the memory to a call that still uses it. */
  abandon(): void;
}

/**
 * Loads listed objects and verifies them, whatever their layout.
 *
 * @throws {RangeError} If they do not fit into the memory together.
 */
export async function loadListed(
  from: AdapterGuard,
  listed: readonly ListedObject[],
  { scratch, signal, keepsDamaged = false }: LoadListedOptions,
): Promise<LoadedObjects> {
  const { length } = listed;
  const packing = packObjects(listed.map(loadBytesOf), scratch.blockBytes);
  using cleanup = new DisposableStack();
  const blocks = await scratch.acquire(packing.usedBytes.length);
  let isAbandoned = false;
  cleanup.defer(() => isAbandoned ? scratch.discard(blocks) : scratch.release(blocks));
  const objects = listed.map((each, i): AdapterObject => ({
    key: each.key,
    byteLength: loadBytesOf(each),
    parts: (packing.objects[i] ?? []).map(({ block, byteOffset, byteLength }) =>
      (blocks[block] as Uint8Array).subarray(byteOffset, byteOffset + byteLength)
    ),
  }));
  const loaded = new Bitmap(length);
  const gone = new Bitmap(length);
  const faults = new Map<number, TrailerFault>();
  const lookup = await from.lookup(objects.map(({ key }) => key), { prefix: false, signal });
  let { status } = lookup;
  // An adapter that no longer finds an object has deleted or evicted it.
  for (let i = 0; i < length; i++) if (lookup.outcomeOf(i) === "absent") gone.set(i);
  const indices = lookup.done.indices();
  if (indices.length > 0) {
    const answer = await from.load(lookup.done.gather(objects), { keepsDamaged });
    status = answer.status;
    isAbandoned = answer.settled !== undefined;
    loaded.setAll(answer.done.gather(indices));
    for (const [n, fault] of answer.faults) faults.set(indices[n] as number, fault);
  }
  const moved = cleanup.move();
  return {
    objects,
    loaded,
    gone,
    faults,
    status,
    abandon: () => void (isAbandoned = true),
    [Symbol.dispose]: () => moved.dispose(),
  };
}

/** Bytes to request for a listed object. */
export function loadBytesOf({ byteLength, loadBytes = byteLength }: ListedObject): number {
  return loadBytes;
}
