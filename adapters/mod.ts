/**
 * The adapters of this package, by type: for where it is loaded from a registry and there is no
 * directory to list. A test keeps this table equal to the directory.
 *
 * @module
 */

import { ownFile } from "../src/runtime/own_file.ts";

/** Where the adapter modules lie, unless they are part of a bundle. */
export const adaptersDirectory: URL | undefined = ownFile(
  import.meta.url,
  "adapters/mod.ts",
  "./",
);

/** Imports of the adapter modules by type. */
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
