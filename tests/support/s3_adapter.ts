import s3 from "../../adapters/s3.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type {
  AdapterEnvironment,
  AdapterError,
  AdapterObject,
  L2Adapter,
} from "../../src/adapter/contract.ts";
import { parseAdapterConfig } from "../../src/adapter/config.ts";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { testEnvironment } from "./adapters.ts";
import { testBytes } from "./objects.ts";
import { ScriptedS3 } from "./scripted_s3.ts";

/** A clock on which the short waits between attempts end immediately. */
export const hurriedClock: Clock = {
  now: () => systemClock.now(),
  schedule: (callback, delayMs) => systemClock.schedule(callback, delayMs < 5_000 ? 0 : delayMs),
};

/** An open adapter and the errors that it reported. */
export interface OpenS3 extends AsyncDisposable {
  /** The adapter. */
  readonly adapter: L2Adapter;
  /** Errors that affected a key but not the call. */
  readonly errors: AdapterError[];
}

/** An adapter on a scripted server. */
export interface S3Lab extends OpenS3 {
  /** The server. */
  readonly server: ScriptedS3;
}

/** Number of attempts per request to a scripted server. */
export const ATTEMPTS = 3;

/** A scripted server and an adapter connected to it. */
export async function openS3Lab(
  config: Readonly<Record<string, unknown>> = {},
  environment: Partial<AdapterEnvironment> = {},
): Promise<S3Lab> {
  const server = new ScriptedS3();
  const open = await openS3({ ...server.config, "max_attempts": ATTEMPTS, ...config }, environment);
  server.takeLog();
  const dispose = async (): Promise<void> => {
    await open[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  };
  return { ...open, server, [Symbol.asyncDispose]: dispose };
}

/** Opens an s3 adapter. */
export async function openS3(
  config: Readonly<Record<string, unknown>>,
  environment: Partial<AdapterEnvironment> = {},
): Promise<OpenS3> {
  const errors: AdapterError[] = [];
  const adapter = await s3.create(
    parseAdapterConfig(s3, config),
    testEnvironment({
      clock: hurriedClock,
      onError: (error) => errors.push(error),
      ...environment,
    }),
  );
  return { adapter, errors, [Symbol.asyncDispose]: () => adapter[Symbol.asyncDispose]() };
}

/** The expected bytes of a key, as an object of two parts. */
export function s3Object(key: ObjectKey, byteLength: number): AdapterObject {
  const bytes = testBytes(key, byteLength);
  return { key, parts: [bytes.slice(0, -7), bytes.slice(-7)], byteLength };
}

/** Options of a call that is never aborted. */
export function call(): { signal: AbortSignal } {
  return { signal: new AbortController().signal };
}

/**
 * Loads objects and returns the result as a string of bits. Loaded objects must have the expected
 * bytes of their keys.
 */
export async function loadBits(
  { adapter }: OpenS3,
  keys: readonly ObjectKey[],
  byteLength: number,
  options = call(),
): Promise<string> {
  const rooms = keys.map((key) => ({ key, parts: [new Uint8Array(byteLength)], byteLength }));
  const loaded = await adapter.load(rooms, options);
  for (const { key, parts: [bytes = new Uint8Array()] } of loaded.gather(rooms)) {
    const expected = testBytes(key, byteLength);
    if (!bytes.every((byte, i) => byte === expected[i])) {
      throw new Error(`Wrong bytes under ${key.id}`);
    }
  }
  return loaded.toString();
}

/** Stores the objects of keys and returns the result as a string of bits. */
export async function storeBits(
  { adapter }: OpenS3,
  keys: readonly ObjectKey[],
  byteLength: number,
  options = call(),
): Promise<string> {
  const objects = keys.map((key) => s3Object(key, byteLength));
  return (await adapter.store(objects, options)).stored.toString();
}

/** Looks up keys, unlocks those found, and returns the result as a string of bits. */
export async function lookupBits(
  { adapter }: OpenS3,
  keys: readonly ObjectKey[],
  prefix = false,
): Promise<string> {
  const found = await adapter.lookupAndLock(keys, { ...call(), prefix });
  adapter.unlock?.(found.gather(keys));
  return found.toString();
}
