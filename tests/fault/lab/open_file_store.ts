import { join } from "@std/path";
import { FileStore } from "../../../adapters/_fs/file_store.ts";
import type { FileSystem } from "../../../adapters/_fs/file_system.ts";
import { ObjectPaths } from "../../../adapters/_fs/object_paths.ts";
import { systemClock } from "../../../src/base/clock.ts";

/** Opens a directory like the adapter, with file operations of the caller. */
export function openFileStore(
  basePath: string,
  capacityBytes: number,
  files: FileSystem,
): Promise<FileStore> {
  return FileStore.open({
    files,
    paths: new ObjectPaths({ basePath, layout: "kvtier", shards: 1 }),
    sharedPath: join(basePath, "tmp"),
    tmpPath: undefined,
    durability: "none",
    isDirect: false,
    isUnsealed: false,
    isGroupShared: false,
    allowsForeignOwner: false,
    ioConcurrency: 8,
    maxBytesInFlight: 2 ** 28,
    readAheadBytes: 0,
    countsOnStart: true,
    bounds: { capacityBytes, watermark: { high: 0.8, low: 0.6 } },
    clock: systemClock,
    onError: (error) => {
      throw error;
    },
  });
}
