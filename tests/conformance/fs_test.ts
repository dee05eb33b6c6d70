import fs from "../../adapters/fs.ts";
import { adapterConformanceCases } from "../../src/testing/mod.ts";
import { fsInThreads } from "../support/fs_threads.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const lmcache = { "file_layout": "lmcache", "accept_unsealed": true };
const variants: Record<string, Readonly<Record<string, unknown>>> = {
  "as it is": {},
  "in threads": { io_workers: 2 },
  "in threads, past the page cache": { io_workers: 2, use_odirect: true, durability: "full" },
  "in threads, LMCache's layout": { io_workers: 2, ...lmcache, checksum: "crc32" },
  "durability file": { durability: "file" },
  "durability full": { durability: "full" },
  "past the page cache": { use_odirect: true, durability: "file" },
  "without sub-directories": { shard_dirs: false },
  "LMCache's layout": lmcache,
  "LMCache's layout with checksums": { ...lmcache, checksum: "crc32", shard_dirs: true },
  "LMCache's layout past the page cache": { ...lmcache, checksum: "crc32", use_odirect: true },
  "without bounds": { max_capacity_gb: 0, read_ahead_size: 1000, io_concurrency: 2 },
};

/**
 * Cases that depend on how files are named and written; all others run with one configuration here.
 * `file_systems_test.ts` runs all of them on each file system, where one can be mounted.
 */
const movesBytes = /gives back|buffers|parts|concurrent|aborted|restart|lists?ing|usage/;

for (const [name, options] of Object.entries(variants)) {
  const config = async () => {
    const directory = await tempDirectory();
    const dispose = () => directory[Symbol.asyncDispose]();
    return {
      config: { base_path: directory.path, io_workers: 0, ...options },
      [Symbol.asyncDispose]: dispose,
    };
  };
  const module = name.startsWith("in threads") ? fsInThreads : fs;
  for (const { name: promise, run } of adapterConformanceCases) {
    if (name !== "as it is" && !movesBytes.test(promise)) continue;
    const boundedConfig = async (capacityBytes: number) => {
      const setup = await config();
      const { config: unbounded } = setup;
      return { ...setup, config: { ...unbounded, max_capacity_gb: capacityBytes / 2 ** 30 } };
    };
    const bounds = name === "as it is" ? { boundedConfig } : {};
    Deno.test(`fs adapter, ${name}: ${promise}`, () => run({ module, config, ...bounds }));
  }
}
