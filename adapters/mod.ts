/**
 * The built-in adapters by type, for packages loaded from a registry, where there is no directory
 * to list. A test keeps this table equal to the directory.
 *
 * @module
 */

import type { ConfigOf } from "../src/adapter/contract.ts";
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

/** Configuration of the `connector` adapter. */
export type ConnectorConfig = ConfigOf<"connector", (typeof import("./connector.ts"))["default"]>;

/** Configuration of the `dram` adapter. */
export type DramConfig = ConfigOf<"dram", (typeof import("./dram.ts"))["default"]>;

/** Configuration of the `fault_inject` adapter. */
export type FaultInjectConfig = ConfigOf<
  "fault_inject",
  (typeof import("./fault_inject.ts"))["default"]
>;

/** Configuration of the `file_pool` adapter. */
export type FilePoolConfig = ConfigOf<"file_pool", (typeof import("./file_pool.ts"))["default"]>;

/** Configuration of the `fs` adapter. */
export type FsConfig = ConfigOf<"fs", (typeof import("./fs.ts"))["default"]>;

/** Configuration of the `mock` adapter. */
export type MockConfig = ConfigOf<"mock", (typeof import("./mock.ts"))["default"]>;

/** Configuration of the `plugin` adapter. */
export type PluginConfig = ConfigOf<"plugin", (typeof import("./plugin.ts"))["default"]>;

/** Configuration of the `resp` adapter. */
export type RespConfig = ConfigOf<"resp", (typeof import("./resp.ts"))["default"]>;

/** Configuration of the `s3` adapter. */
export type S3Config = ConfigOf<"s3", (typeof import("./s3.ts"))["default"]>;
