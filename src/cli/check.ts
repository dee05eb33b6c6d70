import { MIB } from "../base/units.ts";
import { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { bytesWithTrailer } from "../adapter/object_trailer.ts";
import { ObjectWithTrailer } from "../l2/object_to_seal.ts";
import { promisesOf } from "./adapters.ts";
import type { CliCommand } from "./command.ts";
import { l2Args, openFor, readL2Config } from "./l2_config.ts";
import { print } from "./output.ts";

/** Maximum size of one `crypto.getRandomValues` call, in bytes. */
const MAX_RANDOM_BYTES = 2 ** 16;

/** `kvtier check`: tests whether adapters work as configured. */
export const checkCommand: CliCommand = {
  description: "Test adapters: store, look up, load, verify and remove an object of 1 MiB",
  options: l2Args,
  run: async (args) => {
    let isSuccess = true;
    for (const config of await readL2Config(args.raw)) {
      try {
        await using adapter = await openFor(args, config);
        const { guard } = adapter;
        print(`${config.type}: works: ${await tryOut(guard)}; ${promisesOf(guard.capabilities)}`);
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        print(`${config.type}: does not work: ${error.message}`);
        isSuccess = false;
      }
    }
    return isSuccess;
  },
};

/** Stores, looks up, loads and removes an object; returns the durations in words. */
async function tryOut(guard: AdapterGuard): Promise<string> {
  const random = crypto.getRandomValues(new Uint8Array(32));
  const key = new ObjectKey({ chunkHash: random, model: "kvtier-check" });
  const layout = { byteLength: MIB, fingerprint: random.slice(0, 8) };
  const byteLength = bytesWithTrailer(key, layout);
  const written = randomBytes(byteLength);
  const read = new Uint8Array(byteLength);

  let isRemoved = false;
  const times: string[] = [];
  try {
    const stored = await timed(guard, "store", async () => {
      const { done } = await guard.store([new ObjectWithTrailer(key, layout, [written])]);
      return done.test(0);
    });
    const found = await timed(guard, "lookup", async () => {
      return (await guard.lookup([key], { prefix: false })).done.test(0);
    });
    const loaded = await timed(guard, "load", async () => {
      const { done } = await guard.load([{ key, layout, parts: [read], byteLength }]);
      return done.test(0);
    });
    times.push(`stored in ${stored} ms`, `found in ${found} ms`, `loaded in ${loaded} ms`);
  } finally {
    guard.unlock([key]);
    isRemoved = (await guard.delete([key])).done.test(0);
  }
  return [...times, ...isRemoved ? [] : ["but not removed"]].join(", ");
}

/** Runs a step and returns its duration in milliseconds. */
async function timed(
  guard: AdapterGuard,
  operation: string,
  step: () => Promise<boolean>,
): Promise<string> {
  const start = performance.now();
  if (await step()) return (performance.now() - start).toFixed(1);
  const { lastError } = guard.reportStatus();
  throw new Error(lastError ?? `${operation} failed: the adapter reported no reason`);
}

function randomBytes(byteLength: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(byteLength);
  for (let at = 0; at < byteLength; at += MAX_RANDOM_BYTES) {
    crypto.getRandomValues(bytes.subarray(at, at + MAX_RANDOM_BYTES));
  }
  return bytes;
}
