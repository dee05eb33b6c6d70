import { MIB } from "../base/units.ts";
import { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { bytesWithTrailer } from "../adapter/object_trailer.ts";
import { ObjectWithTrailer } from "../adapter/object_to_seal.ts";
import { CommandError } from "./command.ts";
import { useOf } from "./objects.ts";

/** Model of the objects that commands store to try an adapter out. */
export const TEST_MODEL = "kvtier-check";
/** Maximum size of one `crypto.getRandomValues` call, in bytes. */
const MAX_RANDOM_BYTES = 2 ** 16;

/** Durations of the steps of a round trip, in milliseconds. */
export interface RoundTrip {
  readonly storeMs: number;
  readonly lookupMs: number;
  readonly loadMs: number;
  /** Time of the store as the adapter's listing shows it, in milliseconds since 1970. */
  readonly listedAt: number | undefined;
  /** Whether the object has been removed again. */
  readonly isRemoved: boolean;
}

/**
 * Stores an object of 1 MiB, looks it up, loads, verifies and removes it.
 *
 * @param options.lists Whether to look for the object in a listing too.
 * @throws {CommandError} If a step fails.
 */
export async function roundTrip(
  guard: AdapterGuard,
  { lists = false }: { readonly lists?: boolean } = {},
): Promise<RoundTrip> {
  const random = crypto.getRandomValues(new Uint8Array(32));
  const key = new ObjectKey({ chunkHash: random, model: TEST_MODEL });
  const layout = { byteLength: MIB, fingerprint: random.slice(0, 8) };
  const byteLength = bytesWithTrailer(key, layout);
  const written = randomBytes(byteLength);
  const read = new Uint8Array(byteLength);
  const times = { storeMs: 0, lookupMs: 0, loadMs: 0 };
  let listedAt: number | undefined;
  let isRemoved = false;
  try {
    times.storeMs = await timed(guard, "store", async () => {
      const { done } = await guard.store([new ObjectWithTrailer(key, layout, [written])]);
      return done.test(0);
    });
    if (lists) {
      for await (const found of guard.list({ model: TEST_MODEL })) {
        if (found.key.id === key.id) listedAt = useOf(found);
      }
    }
    times.lookupMs = await timed(guard, "lookup", async () => {
      return (await guard.lookup([key], { prefix: false })).done.test(0);
    });
    times.loadMs = await timed(guard, "load", async () => {
      const { done } = await guard.load([{ key, layout, parts: [read], byteLength }]);
      return done.test(0);
    });
  } finally {
    guard.unlock([key]);
    isRemoved = (await guard.delete([key])).done.test(0);
  }
  return { ...times, listedAt, isRemoved };
}

/** Runs a step and returns its duration in milliseconds. */
async function timed(
  guard: AdapterGuard,
  operation: string,
  step: () => Promise<boolean>,
): Promise<number> {
  const start = performance.now();
  if (await step()) return performance.now() - start;
  throw new CommandError(
    guard.lastError ?? `${operation} failed: the adapter reported no reason`,
  );
}

function randomBytes(byteLength: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(byteLength);
  for (let at = 0; at < byteLength; at += MAX_RANDOM_BYTES) {
    crypto.getRandomValues(bytes.subarray(at, at + MAX_RANDOM_BYTES));
  }
  return bytes;
}
