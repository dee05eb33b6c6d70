/** Adapter types of LMCache that have another name here, with what to use instead. */
export const lmcacheTypes: ReadonlyMap<string, string> = new Map([
  [
    "fs_native",
    'fs with file_layout "lmcache" and accept_unsealed true; num_workers ' +
    "corresponds to io_concurrency, and use_odirect to use_odirect plus pad_files",
  ],
  [
    "nixl_native",
    'fs with file_layout "lmcache" and accept_unsealed true; backend_params.file_path ' +
    "corresponds to base_path, num_workers to io_concurrency, and use_direct_io to use_odirect plus pad_files",
  ],
  ["nixl_store", "file_pool"],
  ["nixl_store_dynamic", "file_pool, or fs"],
  ["raw_block", "file_pool"],
  ["dax", "dram, or file_pool on a mounted file system"],
  ["hf3fs", "fs on the mounted file system"],
  ["valkey", "resp"],
  ["native_plugin", "plugin"],
]);
