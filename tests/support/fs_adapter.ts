import { walk } from "@std/fs";
import { join, relative } from "@std/path";
import fs from "../../adapters/fs.ts";
import { encodeFileName } from "../../src/keys/key_codec.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { AdapterEnvironment, AdapterObject, L2Adapter } from "../../src/l2/adapter.ts";
import { parseAdapterConfig } from "../../src/l2/adapter_config.ts";
import { testEnvironment } from "./adapters.ts";
import { testBytes } from "./objects.ts";

/** Opens an fs adapter; its errors fail the test unless `environment` takes them. */
export async function openFs(
  config: Readonly<Record<string, unknown>>,
  environment: Partial<AdapterEnvironment> = {},
): Promise<L2Adapter> {
  return await fs.create(parseAdapterConfig(fs, config), testEnvironment(environment));
}

/** Where the fs adapter keeps an object. */
export function fileOf(basePath: string, key: ObjectKey): string {
  return join(basePath, key.chunkHashHex.slice(0, 2), encodeFileName(key));
}

/** The bytes that belong under a key, as an object of two parts. */
export function testObject(key: ObjectKey, byteLength = 1000): AdapterObject {
  const bytes = testBytes(key, byteLength);
  return { key, parts: [bytes.slice(0, 7), bytes.slice(7)], byteLength };
}

/** Paths of the files below a directory, sorted, relative to it. */
export async function filesIn(directory: string): Promise<string[]> {
  const entries = await Array.fromAsync(walk(directory, { includeDirs: false }));
  return entries.map(({ path }) => relative(directory, path)).sort();
}
