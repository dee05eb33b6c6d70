/**
 * The built-in adapters by type, for packages loaded from a registry, where there is no directory
 * to list. A test keeps this table equal to the directory.
 *
 * @module
 */

import { ownFile } from "../src/base/own_file.ts";

/** The directory of the adapter modules; `undefined` in a bundle. */
export const adaptersDirectory: URL | undefined = ownFile(
  import.meta.url,
  "adapters/mod.ts",
  "./",
);

export const builtInAdapters: Readonly<Record<string, () => Promise<unknown>>> = {
  connector: () => import("./connector.ts"),
  dram: () => import("./dram.ts"),
  "fault_inject": () => import("./fault_inject.ts"),
  "file_pool": () => import("./file_pool.ts"),
  fs: () => import("./fs.ts"),
  mock: () => import("./mock.ts"),
  plugin: () => import("./plugin.ts"),
  resp: () => import("./resp.ts"),
  s3: () => import("./s3.ts"),
};
