import { walk } from "@std/fs";
import { join, relative } from "@std/path";
import { FileStore } from "../../adapters/_fs/file_store.ts";
import type { FileStoreOptions } from "../../adapters/_fs/store_context.ts";
import { hostFileSystem } from "../../adapters/_fs/file_system.ts";
import { type FileLayout, ObjectPaths } from "../../adapters/_fs/object_paths.ts";
import fs from "../../adapters/fs.ts";
import { encodeFileName } from "../../src/keys/key_codec.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { AdapterEnvironment, AdapterObject, L2Adapter } from "../../src/adapter/contract.ts";
import { parseAdapterConfig } from "../../src/adapter/config.ts";
import { systemClock } from "../../src/base/clock.ts";
import { testEnvironment } from "./adapters.ts";
import { testBytes } from "./objects.ts";

/**
 * Opens an fs adapter, without threads unless `config` asks for them; its errors fail the test
 * unless `environment` takes them.
 */
export async function openFs(
  config: Readonly<Record<string, unknown>>,
  environment: Partial<AdapterEnvironment> = {},
): Promise<L2Adapter> {
  return await fs.create(
    parseAdapterConfig(fs, { io_workers: 0, ...config }),
    testEnvironment(environment),
  );
}

/** Path at which the fs adapter stores an object. */
export function fileOf(basePath: string, key: ObjectKey): string {
  return join(basePath, key.chunkHashHex.slice(0, 2), encodeFileName(key));
}

/** The expected bytes of a key, as an object of two parts. */
export function testObject(key: ObjectKey, byteLength = 1000): AdapterObject {
  const bytes = testBytes(key, byteLength);
  return { key, parts: [bytes.slice(0, 7), bytes.slice(7)], byteLength };
}

/** Paths of the files below a directory, sorted, relative to it. */
export async function filesIn(directory: string): Promise<string[]> {
  const entries = await Array.fromAsync(walk(directory, { includeDirs: false }));
  return entries.map(({ path }) => relative(directory, path)).sort();
}

/** Paths of the object files below a directory, sorted, relative to it. */
export async function objectFilesIn(directory: string): Promise<string[]> {
  return (await filesIn(directory)).filter((path) => path.endsWith(".data"));
}

/** Paths of the temporary files below a directory, sorted. */
export async function temporaryFilesIn(directory: string): Promise<string[]> {
  return (await filesIn(directory)).filter((path) => path.endsWith(".tmp"));
}

/** Options for opening a {@linkcode FileStore} in a test, with simple defaults. */
export type TestStoreOptions =
  & Partial<Omit<FileStoreOptions, "paths" | "sharedPath">>
  & { readonly layout?: FileLayout; readonly shards?: number };

/** Opens the store of the fs adapter directly, so that a test can replace its parts. */
export async function openFileStore(
  basePath: string,
  { layout = "kvtier", shards = 0, ...options }: TestStoreOptions = {},
): Promise<FileStore> {
  return await FileStore.open({
    files: hostFileSystem,
    paths: new ObjectPaths({ basePath, layout, shards }),
    sharedPath: join(basePath, "tmp"),
    tmpPath: undefined,
    durability: "none",
    isDirect: false,
    isUnsealed: layout === "lmcache",
    isGroupShared: false,
    allowsForeignOwner: false,
    ioConcurrency: 8,
    maxBytesInFlight: 2 ** 28,
    readAheadBytes: 0,
    countsOnStart: true,
    bounds: { capacityBytes: 2 ** 30, watermark: { high: 0.8, low: 0.6 } },
    clock: systemClock,
    onError: (error) => {
      throw error;
    },
    ...options,
  });
}

/** Disk usage of the objects below a directory, in bytes. */
export async function diskBytesIn(directory: string): Promise<number> {
  let bytes = 0;
  for (const path of await objectFilesIn(directory)) {
    const info = await Deno.lstat(join(directory, path)).catch((error: unknown) => {
      // It may have been evicted in the meantime.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
    if (info) bytes += info.blocks === null ? info.size : info.blocks * 512;
  }
  return bytes;
}
