/**
 * The `file_pool` adapter: objects in slots of a few preallocated files.
 *
 * @module
 */
import { defineL2Adapter, type L2AdapterModule, unmetPath } from "../src/adapter/contract.ts";
import { failFor } from "../src/base/config_error.ts";
import { MAX_FILES, MAX_SLOTS } from "./_file_pool/pool_geometry.ts";
import { PoolStore } from "./_file_pool/pool_store.ts";

const fail = failFor("file_pool adapter");

/** Bytes that a slot may have beyond the largest object of device memory: room for the trailer. */
const MAX_TRAILER_BYTES = 4096;

/** Requirements of the backends other than POSIX. */
const NEEDS = {
  GDS: "NVIDIA GPUDirect Storage (cuFile), which needs CUDA memory and native code",
  GDS_MT: "NVIDIA GPUDirect Storage (cuFile), which needs CUDA memory and native code",
  HF3FS: "the native client library of a 3FS cluster",
} as const;

const config = {
  backend: {
    type: "string",
    oneOf: ["POSIX", "GDS", "GDS_MT", "HF3FS"],
    default: "POSIX",
    help: "I/O backend. Only POSIX is supported; the others are LMCache's.",
  },
  pool_size: {
    type: "number",
    required: true,
    integer: true,
    minimum: 1,
    maximum: MAX_SLOTS,
    help: "Number of slots, one per object; all of them take space on disk from the start.",
  },
  backend_params: {
    type: "object",
    required: true,
    help: "Location and layout of the pool.",
    fields: {
      file_path: {
        type: "string",
        required: true,
        check: unmetPath,
        help: "Directory of the pool, used by this cache only; created if it does not exist.",
      },
      use_direct_io: {
        type: "boolean",
        default: false,
        help: "Whether to bypass the page cache, if possible.",
      },
      allow_foreign_owner: {
        type: "boolean",
        default: false,
        help: "Allows a directory of another user. The owner can read and replace everything in " +
          "it: for containers and NFS.",
      },
      slot_bytes: {
        type: "number",
        integer: true,
        minimum: 1,
        help: "Max bytes of an object with its trailer. Default: the size of the first object " +
          "stored, rounded up to a multiple of 4096.",
      },
      files: {
        type: "number",
        integer: true,
        minimum: 1,
        maximum: MAX_FILES,
        default: 4,
        help: "Number of files over which the slots are distributed.",
      },
    },
  },
} as const;

/**
 * Objects in slots of a few preallocated files.
 *
 * Requires `--allow-read` and `--allow-write` permissions for `file_path`.
 */
const filePool: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "file_pool",
  summary: "Objects in slots of a few preallocated files, for one process.",
  config,
  capabilities: { durable: true, evicts: true },
  create(
    { backend, pool_size: slots, backend_params: params },
    { l1Memory, clock, signal, onError, onEvicted },
  ) {
    if (backend !== "POSIX") fail("backend", `POSIX: ${backend} is ${NEEDS[backend]}`, backend);
    const { slot_bytes: slotBytes, files } = params;
    const maxBytes = l1Memory.maxObjectBytes + MAX_TRAILER_BYTES;
    if (slotBytes !== undefined && slotBytes > maxBytes) {
      const expected =
        `at most ${maxBytes}: the largest object that l1Memory can hold, and its trailer`;
      fail("backend_params.slot_bytes", expected, slotBytes);
    }
    return PoolStore.open({
      path: params.file_path,
      slots,
      files,
      slotBytes,
      isDirect: params.use_direct_io,
      allowsForeignOwner: params.allow_foreign_owner,
      clock,
      signal,
      onError,
      onEvicted,
    });
  },
});
export default filePool;
