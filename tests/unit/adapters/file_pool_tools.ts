import { assertEquals } from "@std/assert";
import filePool from "../../../adapters/file_pool.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import {
  type AdapterEnvironment,
  type AdapterError,
  concatParts,
  type L2Adapter,
  type ObjectKey,
} from "../../../src/adapter/contract.ts";
import { testEnvironment } from "../../support/adapters.ts";
import { testObject } from "../../support/fs_adapter.ts";
import { testBytes } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

/** Bytes of the objects in most tests. */
export const OBJECT_BYTES = 1000;

/** A call that is never aborted. */
export const call = { signal: new AbortController().signal };

/** Options of a test pool. */
export interface PoolOptions {
  readonly slots?: number;
  readonly params?: Readonly<Record<string, unknown>>;
}

/** Opens a pool in a directory; reported errors fail the test unless `environment` handles them. */
export async function openPool(
  path: string,
  { slots = 8, params = { "slot_bytes": 4096 } }: PoolOptions = {},
  environment: Partial<AdapterEnvironment> = {},
): Promise<L2Adapter> {
  const given = { "pool_size": slots, "backend_params": { "file_path": path, ...params } };
  const values = parseAdapterConfig(filePool, given);
  return await filePool.create(values, testEnvironment(environment));
}

/** An open pool in a new directory. */
export interface TempPool extends AsyncDisposable {
  readonly adapter: L2Adapter;
  readonly path: string;
  readonly errors: AdapterError[];
  /** Stops cleanly and reopens the pool. */
  restart(): Promise<void>;
  /**
   * Reopens a copy of the directory as it is now, as after a crash; the first pool is closed
   * afterwards.
   */
  crash(): Promise<void>;
}

/** Opens a pool in a new directory, which is removed with it. */
export async function tempPool(
  options: PoolOptions = {},
  environment: Partial<AdapterEnvironment> = {},
): Promise<TempPool> {
  const stack = new AsyncDisposableStack();
  let path = stack.use(await tempDirectory()).path;
  const errors: AdapterError[] = [];
  const open = () => {
    return openPool(path, options, { onError: (error) => errors.push(error), ...environment });
  };
  let adapter = await open();
  return {
    get adapter() {
      return adapter;
    },
    get path() {
      return path;
    },
    errors,
    async restart() {
      await adapter[Symbol.asyncDispose]();
      adapter = await open();
    },
    async crash() {
      const copied = stack.use(await tempDirectory()).path;
      for await (const { name } of Deno.readDir(path)) {
        await Deno.copyFile(`${path}/${name}`, `${copied}/${name}`);
      }
      await adapter[Symbol.asyncDispose]();
      path = copied;
      adapter = await open();
    },
    async [Symbol.asyncDispose]() {
      await adapter[Symbol.asyncDispose]();
      await stack.disposeAsync();
    },
  };
}

/** Stores the objects of keys in one batch; returns the outcome as bits. */
export async function store(
  adapter: L2Adapter,
  keys: readonly ObjectKey[],
  byteLength = OBJECT_BYTES,
): Promise<string> {
  const objects = keys.map((key) => testObject(key, byteLength));
  return String((await adapter.store(objects, call)).stored);
}

/** Loads objects and returns the outcome as bits; checks the bytes. */
export async function load(
  adapter: L2Adapter,
  keys: readonly ObjectKey[],
  byteLength = OBJECT_BYTES,
): Promise<string> {
  const rooms = keys.map((key) => ({ key, parts: [new Uint8Array(byteLength)], byteLength }));
  const loaded = await adapter.load(rooms, call);
  for (const { key, parts } of loaded.gather(rooms)) {
    assertEquals(concatParts(parts), testBytes(key, byteLength));
  }
  return String(loaded);
}

/** Locks the existing objects of keys; returns the outcome as bits. */
export async function lock(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  return String(await adapter.lookupAndLock(keys, { ...call, prefix: false }));
}

/** Which keys are listed, as bits. Unlike a lookup, listing is no use. */
export async function held(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  const listed = await Array.fromAsync(adapter.list?.(call) ?? []);
  const ids = new Set(listed.map(({ key }) => key.id));
  return keys.map(({ id }) => ids.has(id) ? "1" : "0").join("");
}

/** Deletes the objects of keys; returns the outcome as bits. */
export async function remove(adapter: L2Adapter, keys: readonly ObjectKey[]): Promise<string> {
  return String((await adapter.delete?.(keys, call))?.deleted);
}

/** Status of the adapter. */
export function statusOf(adapter: L2Adapter): Readonly<Record<string, unknown>> {
  return adapter.reportStatus?.() ?? {};
}
