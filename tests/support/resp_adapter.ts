import resp from "../../adapters/resp.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { AdapterEnvironment, AdapterObject, L2Adapter } from "../../src/adapter/contract.ts";
import { parseAdapterConfig } from "../../src/adapter/config.ts";
import { testEnvironment } from "./adapters.ts";
import { testBytes } from "./objects.ts";

/** Opens a resp adapter on the loopback address; its errors fail the test unless taken. */
export async function openResp(
  port: number,
  config: Readonly<Record<string, unknown>> = {},
  environment: Partial<AdapterEnvironment> = {},
): Promise<L2Adapter> {
  const values = parseAdapterConfig(resp, { host: "127.0.0.1", port, ...config });
  return await resp.create(values, testEnvironment(environment));
}

/** The expected bytes of a key, as an object of two parts. */
export function respObject(key: ObjectKey, byteLength: number): AdapterObject {
  const bytes = testBytes(key, byteLength);
  return { key, parts: [bytes.slice(0, -7), bytes.slice(-7)], byteLength };
}

/** An object to load into. */
export function respRoom(key: ObjectKey, byteLength: number): AdapterObject {
  return { key, parts: [new Uint8Array(byteLength)], byteLength };
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
  adapter: L2Adapter,
  keys: readonly ObjectKey[],
  byteLength: number,
): Promise<string> {
  const rooms = keys.map((key) => respRoom(key, byteLength));
  const loaded = await adapter.load(rooms, call());
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
  adapter: L2Adapter,
  keys: readonly ObjectKey[],
  byteLength: number,
): Promise<string> {
  const { stored } = await adapter.store(keys.map((key) => respObject(key, byteLength)), call());
  return stored.toString();
}

/** Looks up keys, unlocks those found, and returns the result as a string of bits. */
export async function lookupBits(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  const found = await adapter.lookupAndLock(keys, { ...call(), prefix: false });
  adapter.unlock?.(found.gather(keys));
  return found.toString();
}
