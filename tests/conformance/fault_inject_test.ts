import dram from "../../adapters/dram.ts";
import faultInject from "../../adapters/fault_inject.ts";
import fs from "../../adapters/fs.ts";
import { runAdapterConformance } from "../../src/testing/mod.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const GIB = 2 ** 30;

// With its defaults it drops nothing, so the wrapped adapter must still conform.
runAdapterConformance({
  module: faultInject,
  adapters: [dram, fs],
  capabilities: { evicts: true, shared: true, durable: true, acceptsShortObjects: true },
  config: async () => {
    const directory = await tempDirectory();
    return {
      config: { inner: { type: "fs", "base_path": directory.path } },
      [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
    };
  },
  boundedConfig: async (capacityBytes) => {
    const directory = await tempDirectory();
    const config = { "max_capacity_gb": capacityBytes / GIB, "base_path": directory.path };
    return {
      config: { inner: { type: "fs", ...config } },
      [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
    };
  },
});
