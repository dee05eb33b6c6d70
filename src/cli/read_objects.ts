import type { AdapterObject, ListedObject } from "../adapter/contract.ts";
import { loadBytesOf, loadListed } from "../hotplug/load_listed.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { isBeyondUse } from "../l2/load_check.ts";
import { STAGING_BLOCK_BYTES, StagingPool } from "../memory/staging_pool.ts";
import { CommandError } from "./command.ts";
import { bytesInWords } from "./quantities.ts";
import { lastErrorOf } from "./stores.ts";

/** Max bytes of a batch, unless a single object has more. */
const BATCH_BYTES = 8 * 2 ** 20;
/** Max objects of a batch. */
const BATCH_OBJECTS = 256;
/** Max bytes of an object. */
const MAX_OBJECT_BYTES = 2 ** 30;

/**
 * What became of an object: `intact`; `damaged` (it is not what was stored); `foreign` (an object
 * of another key, layout, format or encryption, which others may use); `unreadable` (the adapter
 * lists it but does not load it); `gone` (removed since it was listed).
 */
export type ObjectState = "intact" | "damaged" | "foreign" | "unreadable" | "gone";

/** An object that was read. */
export interface ReadObject {
  readonly listed: ListedObject;
  readonly state: ObjectState;
  /** Why the state is not `intact`. */
  readonly reason?: string;
  /** Key and bytes of an intact object, valid until the next batch is asked for. */
  readonly object?: AdapterObject;
}

/**
 * Reads and verifies objects, batch by batch, in bounded memory. Damaged objects stay where they
 * are.
 *
 * @throws {CommandError} If the adapter fails.
 */
export async function* readObjects(
  guard: AdapterGuard,
  objects: AsyncIterable<ListedObject>,
  signal: AbortSignal,
): AsyncGenerator<readonly ReadObject[], void> {
  using scratch = new StagingPool<Uint8Array>({
    blockBytes: STAGING_BLOCK_BYTES,
    capacityBytes: MAX_OBJECT_BYTES + 2 * STAGING_BLOCK_BYTES,
    create: () => new Uint8Array(STAGING_BLOCK_BYTES),
    destroy: () => {},
  });
  let batch: ListedObject[] = [];
  let bytes = 0;
  async function* readBatch() {
    const listed = batch;
    batch = [];
    bytes = 0;
    if (listed.length === 0) return;
    using read = await loadListed(guard, listed, { scratch, signal, keepsDamaged: true });
    signal.throwIfAborted();
    if (read.status !== "answered") throw new CommandError(lastErrorOf(guard));
    yield listed.map((each, i): ReadObject => {
      const fault = read.faults.get(i);
      if (read.loaded.test(i)) {
        return { listed: each, state: "intact", object: read.objects[i] as AdapterObject };
      }
      if (read.gone.test(i)) return { listed: each, state: "gone", reason: "removed meanwhile" };
      if (fault === undefined) {
        return { listed: each, state: "unreadable", reason: "the adapter does not load it" };
      }
      return { listed: each, state: isBeyondUse(fault) ? "damaged" : "foreign", reason: fault };
    });
  }
  for await (const listed of objects) {
    const byteLength = loadBytesOf(listed);
    if (!(byteLength <= MAX_OBJECT_BYTES)) {
      const reason = `larger than ${bytesInWords(MAX_OBJECT_BYTES)}`;
      yield [{ listed, state: "unreadable", reason }];
      continue;
    }
    const isFull = bytes + byteLength > BATCH_BYTES || batch.length === BATCH_OBJECTS;
    if (isFull) yield* readBatch();
    batch.push(listed);
    bytes += byteLength;
  }
  yield* readBatch();
}

/** Number of objects of an adapter, for a progress bar; `undefined` if it is not known cheaply. */
export async function countObjects(
  guard: AdapterGuard,
  isWanted: boolean,
): Promise<number | undefined> {
  return isWanted ? (await guard.usage())?.objectCount : undefined;
}
