import type { ObjectKey } from "../../../src/keys/object_key.ts";
import type { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import { TRAILER_BYTES } from "../../../src/adapter/object_trailer.ts";
import { ObjectWithTrailer } from "../../../src/adapter/object_to_seal.ts";
import { openAdapterRegistry } from "../../../src/known_adapters.ts";
import { openGuarded } from "../../../src/l2/open_adapter.ts";
import type { CheckedConfig } from "../../../src/l2/adapter_config.ts";
import type { ObjectRoom } from "./objects.ts";
import type { LookupKind } from "./row.ts";
import type { BenchTarget, Round } from "./target.ts";

/** Keys of one call, and where their objects lie. */
interface Call {
  readonly keys: readonly ObjectKey[];
  readonly rooms: readonly ObjectRoom[];
}

/** An adapter as the cache uses it: objects are sealed before a store and verified after a load. */
export class KvtierTarget implements BenchTarget {
  /** Name in the results. */
  readonly name: string;
  /** The cache looks chains up. */
  readonly lookupKinds = ["chain", "each"] as const;
  readonly #guard: AdapterGuard;

  private constructor(name: string, guard: AdapterGuard) {
    this.name = name;
    this.#guard = guard;
  }

  /**
   * Opens an adapter.
   *
   * @throws {Error} If it cannot be created.
   */
  static async open(
    config: CheckedConfig,
    name = `kvtier-${config.module.type}`,
  ): Promise<KvtierTarget> {
    const registry = await openAdapterRegistry({});
    const { guard } = await openGuarded(config, { registry });
    return new KvtierTarget(name, guard);
  }

  /** What the adapter last said of a failure; `undefined` if there was none. */
  get lastError(): string | undefined {
    return this.#guard.reportStatus().lastError;
  }

  /** Stores the objects, which are sealed on the way. */
  store(round: Round): Promise<number> {
    const { layout, readBack } = round.buffers;
    return sum(
      callsOf(round, readBack).map(async ({ keys, rooms }) => {
        const objects = keys.map((key, i) =>
          new ObjectWithTrailer(key, layout, rooms[i]?.parts ?? [])
        );
        return (await this.#guard.store(objects)).done.popcount();
      }),
    );
  }

  /** Looks keys up and gives the locks back. */
  lookup({ lookups, inFlight }: Round, how: LookupKind): Promise<number> {
    return sum(
      splits(lookups, inFlight).map(async (keys) => {
        const { done: found } = await this.#guard.lookup(keys, { prefix: how === "chain" });
        this.#guard.unlock(found.gather(keys));
        return found.popcount();
      }),
    );
  }

  /** Loads the objects and verifies them. */
  async load(round: Round): Promise<number> {
    const { layout, aligned } = round.buffers;
    const loaded = await sum(
      callsOf(round, aligned).map(async ({ keys, rooms }) => {
        const byteLength = layout.byteLength + TRAILER_BYTES;
        const objects = keys.map((key, i) => ({
          key,
          layout,
          parts: rooms[i]?.parts ?? [],
          byteLength,
        }));
        return (await this.#guard.load(objects)).done.popcount();
      }),
    );
    for (const [index, { payload }] of aligned.entries()) round.onLoaded?.(index, payload);
    return loaded;
  }

  /** Locks the objects as the lookup before a load does. */
  async prepareLoad({ keys }: Round): Promise<void> {
    await this.#guard.lookup(keys, { prefix: false });
  }

  /** Removes the objects, where the adapter can. */
  async clear({ keys }: Round): Promise<void> {
    await this.#guard.delete(keys);
  }

  /** Closes the adapter. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#guard.close();
  }
}

/** The keys of each call. */
function splits<T>(items: readonly T[], count: number): T[][] {
  const size = Math.ceil(items.length / count);
  return Array.from({ length: count }, (_, i) => items.slice(i * size, (i + 1) * size));
}

function callsOf({ keys, inFlight }: Round, rooms: readonly ObjectRoom[]): Call[] {
  const roomsOfCalls = splits(rooms, inFlight);
  return splits(keys, inFlight).map((keys, i) => ({ keys, rooms: roomsOfCalls[i] ?? [] }));
}

async function sum(counts: readonly Promise<number>[]): Promise<number> {
  return (await Promise.all(counts)).reduce((total, count) => total + count, 0);
}
