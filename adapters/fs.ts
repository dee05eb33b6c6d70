/**
 * The `fs` adapter: objects as files in a directory, local or shared.
 *
 * @module
 */
import { isAbsolute, join, normalize, resolve, SEPARATOR } from "@std/path";
import { GIB, MAX_GIB } from "../src/base/units.ts";
import {
  type ConfigValues,
  defineL2Adapter,
  evictionField,
  type L2AdapterModule,
  unmetPath,
  watermarksOf,
} from "../src/adapter/contract.ts";
import { type FailConfig, failFor } from "../src/base/config_error.ts";
import { IoWorkers } from "../src/base/io/io_workers.ts";
import { isLocalDisk } from "./_shared/local_disk.ts";
import { FileWorker } from "./_shared/file_worker.ts";
import { OffThreadFiles } from "./_fs/off_thread_files.ts";
import { DirectFiles } from "./_fs/direct_files.ts";
import type { DiskBounds } from "./_fs/disk_space_options.ts";
import { FileStore } from "./_fs/file_store.ts";
import { hostFileSystem } from "./_fs/file_system.ts";
import { ObjectPaths } from "./_fs/object_paths.ts";
import { UnsealedStore } from "./_fs/unsealed_store.ts";

const fail: FailConfig = failFor("fs adapter");

/**
 * Directory of the locks and the ledger, the same for all processes whatever their configuration.
 */
const SHARED_DIRECTORY = "tmp";
/** Most cores that have a thread each by default. */
const MAX_CORES = 4;
/** Default limit of the bytes in flight. */
const MAX_BYTES_IN_FLIGHT = 256 * 2 ** 20;

const config = {
  base_path: {
    type: "string",
    required: true,
    check: unmetPath,
    help: "Directory of the objects; created if it does not exist. Several processes may share it.",
  },
  relative_tmp_dir: {
    type: "string",
    nullable: true,
    check: (path: string): string | undefined =>
      path === "" ? undefined : unmetPath(path) ?? unmetInside(path),
    help:
      "Directory below base_path for temporary files. Default (also null or empty): next to the " +
      "objects, which is faster.",
  },
  durability: {
    type: "string",
    oneOf: ["none", "file", "full"],
    default: "none",
    help:
      "What survives a power cut: none gives no guarantee (a torn file is a miss), file syncs " +
      "the data before it is published, full also syncs the directory.",
  },
  max_capacity_gb: {
    type: "number",
    minimum: 0,
    maximum: MAX_GIB,
    default: 10,
    help: "Max GiB on disk, over all processes that share the directory; 0: no limit.",
  },
  eviction: {
    ...evictionField,
    fields: {
      ...evictionField.fields,
      eviction_policy: {
        ...evictionField.fields.eviction_policy,
        check: (policy: string) =>
          policy === "LRU" || policy === "noop"
            ? undefined
            : "LRU or noop: all that processes know of files in common is when they were used last",
        help: "LRU evicts the least recently used objects first; noop evicts nothing.",
      },
    },
    help: "How to evict: above trigger_watermark, eviction_ratio of the capacity is removed.",
  },
  disk_high_watermark: {
    type: "number",
    exclusiveMinimum: 0,
    maximum: 1,
    help:
      "Share of the disk that may be used, including by other programs; above it, objects are " +
      "evicted. Needs --allow-sys=statfs.",
  },
  disk_min_free_gb: {
    type: "number",
    minimum: 0,
    maximum: MAX_GIB,
    help: "GiB of the disk that stay free. Needs --allow-sys=statfs. Default, without " +
      "disk_high_watermark and with that permission: 1/32 of the disk, at most 1 GiB.",
  },
  recover_on_start: {
    type: "boolean",
    default: true,
    help: "Whether to count existing objects in the background when the cache opens.",
  },
  use_odirect: {
    type: "boolean",
    default: false,
    help: "Whether to bypass the page cache, if possible.",
  },
  io_concurrency: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 24,
    default: 8,
    help:
      "Max files being read at a time, and max files being written. Of Deno's 32 threads, one " +
      "adapter never uses more than 10, and all adapters together 24.",
  },
  io_workers: {
    type: "number",
    integer: true,
    minimum: 0,
    maximum: 16,
    help:
      "Threads that look up, read, write and checksum files. All but one write, so that loads do " +
      "not wait for a slow disk. Default: one more than the cores, at most 5. 0: none; the thread " +
      "that runs the engine computes checksums.",
  },
  read_max_bytes_in_flight: {
    type: "number",
    integer: true,
    minimum: 0,
    default: 0,
    help: "Max bytes being read at a time, and max bytes being written; 0: 256 MiB.",
  },
  read_ahead_size: {
    type: "number",
    nullable: true,
    integer: true,
    minimum: 1,
    help:
      "Bytes of the first read of a file, which triggers read-ahead. Default: one read for all.",
  },
  shard_dirs: {
    type: "boolean",
    help:
      "Whether to distribute files over sub-directories by hash. With file_layout kvtier: one " +
      "level of 256, on by default. With lmcache: two levels, off by default: the layout of " +
      "LMCache's nixl_native, which its fs and fs_native do not read.",
  },
  file_layout: {
    type: "string",
    oneOf: ["kvtier", "lmcache"],
    default: "kvtier",
    help:
      "kvtier: every file has a trailer. lmcache: LMCache's names and raw files, so that both " +
      "can use the directory; needs accept_unsealed.",
  },
  accept_unsealed: {
    type: "boolean",
    default: false,
    help: "Allows files without a trailer (file_layout lmcache): wrong bytes in them go unnoticed.",
  },
  checksum: {
    type: "string",
    oneOf: ["none", "crc32"],
    default: "none",
    help:
      "With file_layout lmcache: crc32 appends a checksum and requires it. No released LMCache " +
      "writes one, so objects stored by LMCache are misses; LMCache can read such files. The " +
      "trailer of kvtier files always has a checksum.",
  },
  pad_files: {
    type: "boolean",
    default: false,
    help:
      "With file_layout lmcache: whether to pad files to a multiple of 4096 bytes, as LMCache's " +
      "fs_native requires with use_odirect. Padded files can always be read.",
  },
  allow_shared_group: {
    type: "boolean",
    default: false,
    help:
      "Allows a base_path that other users can write to, and gives its group access to new files.",
  },
  allow_foreign_owner: {
    type: "boolean",
    default: false,
    help:
      "Allows a base_path of another user. The owner can read and replace everything in it: for " +
      "containers, NFS, and a directory that LMCache created as another user. " +
      "allow_shared_group allows it too.",
  },
} as const;

/**
 * Objects as files in a directory.
 *
 * Requires `--allow-read` and `--allow-write` permissions for `base_path`, and
 * `--allow-sys=statfs` to keep some of the disk free.
 */
const fs: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "fs",
  summary: "Objects as files in a directory, local or shared.",
  config,
  capabilities: { durable: true, shared: true, evicts: true },
  async create(values, { clock, onError, onEvicted }) {
    const { base_path: given, file_layout: layout } = values;
    if (layout === "lmcache" && !values.accept_unsealed) {
      fail("accept_unsealed", "true with file_layout lmcache: its files have no trailer", false);
    }
    if (layout === "kvtier" && values.pad_files) {
      fail(
        "pad_files",
        "false with file_layout kvtier: its files are not padded",
        true,
      );
    }
    if (layout === "kvtier" && values.accept_unsealed) {
      fail("accept_unsealed", "false with file_layout kvtier: its files have a trailer", true);
    }
    const statfs = await Deno.permissions.query({ name: "sys", kind: "statfs" });
    const canAskDisk = statfs.state === "granted";
    for (const key of ["disk_high_watermark", "disk_min_free_gb"] as const) {
      if (values[key] === undefined || canAskDisk) continue;
      fail(key, "the permission --allow-sys=statfs", values[key]);
    }
    const { state } = await Deno.permissions.query({ name: "read", path: given });
    if (state !== "granted") fail("base_path", `the permission --allow-read=${given}`, given);
    const basePath = await absolutePath(given);
    const isSharded = values.shard_dirs ?? layout === "kvtier";
    const shards = !isSharded ? 0 : layout === "kvtier" ? 1 : 2;
    // Without a worker, files can only be closed in place.
    const closesInPlace = !await FileWorker.isAvailable() || await isLocalDisk(basePath);
    const offThread = closesInPlace ? undefined : new OffThreadFiles();
    const count = values.io_workers ?? 1 + Math.min(MAX_CORES, navigator.hardwareConcurrency);
    const store = await FileStore.open({
      threads: count === 0 ? undefined : new IoWorkers({ count }),
      files: offThread?.files ?? hostFileSystem,
      ...(offThread && { closeFiles: (signal) => offThread.close(signal) }),
      directFiles: (files) => new DirectFiles(files, closesInPlace),
      paths: new ObjectPaths({ basePath, layout, shards }),
      sharedPath: join(basePath, SHARED_DIRECTORY),
      tmpPath: tmpPathOf(basePath, values.relative_tmp_dir),
      durability: values.durability,
      isDirect: values.use_odirect,
      isUnsealed: layout === "lmcache",
      isGroupShared: values.allow_shared_group,
      allowsForeignOwner: values.allow_foreign_owner,
      ioConcurrency: values.io_concurrency,
      maxBytesInFlight: values.read_max_bytes_in_flight || MAX_BYTES_IN_FLIGHT,
      readAheadBytes: values.read_ahead_size ?? 0,
      countsOnStart: values.recover_on_start,
      bounds: { ...boundsOf(values), keepsReserve: canAskDisk },
      clock,
      onError,
      onEvicted,
    });
    if (layout === "kvtier") return store;
    const hasChecksum = values.checksum === "crc32";
    return new UnsealedStore(store, { hasChecksum, isPadded: values.pad_files, onError });
  },
});
export default fs;

function boundsOf(values: ConfigValues<typeof config>): DiskBounds {
  const { max_capacity_gb: capacity, disk_high_watermark, disk_min_free_gb } = values;
  const watermark = watermarksOf(values.eviction);
  return {
    capacityBytes: capacity === 0 ? Infinity : Math.floor(capacity * GIB),
    ...(watermark === undefined ? {} : { watermark }),
    ...(disk_high_watermark === undefined ? {} : { diskHighWatermark: disk_high_watermark }),
    ...(disk_min_free_gb === undefined ? {} : { diskMinFreeBytes: disk_min_free_gb * GIB }),
  };
}

function unmetInside(path: string): string | undefined {
  const leaves = normalize(path + SEPARATOR).startsWith(`..${SEPARATOR}`) || isAbsolute(path);
  return leaves ? "a relative path below base_path" : undefined;
}

/** Directory of temporary files; `undefined` if they lie next to the objects. */
function tmpPathOf(basePath: string, relative: string | undefined): string | undefined {
  const path = join(basePath, relative ?? "");
  return path === join(basePath) ? undefined : path;
}

/**
 * The absolute path of a directory, independent of later changes of the working directory. Links
 * are resolved once, so that they cannot be redirected later.
 */
async function absolutePath(given: string): Promise<string> {
  let path: string;
  try {
    path = resolve(given);
  } catch (cause) {
    const expected = "an absolute path, or the permission to read the working directory";
    fail("base_path", expected, given, cause);
  }
  return await Deno.realPath(path).catch(() => path);
}
