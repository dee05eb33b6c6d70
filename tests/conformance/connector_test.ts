import connector from "../../adapters/connector.ts";
import { adapterConformanceCases } from "../../src/testing/mod.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const module = new URL("../support/connectors.ts", import.meta.url).href;

/** Configurations by name; each gets a directory that is removed afterwards. */
const variants: Readonly<Record<string, (base: string) => Readonly<Record<string, unknown>>>> = {
  "a map": () => ({ export: "map" }),
  "methods for many keys, no list": () => ({ export: "batches" }),
  "unstorage in memory": () => ({ export: "memory" }),
  "unstorage on files, small values": (base) => ({
    export: "files",
    params: { base },
    "max_value_bytes": 4096,
  }),
  "a Keyv": () => ({ export: "keyv" }),
};

for (const [name, configOf] of Object.entries(variants)) {
  for (const { name: promise, run } of adapterConformanceCases) {
    const config = async () => {
      const directory = await tempDirectory();
      const config = { module, ...configOf(directory.path) };
      return { config, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
    };
    const boundedConfig = async (capacityBytes: number) => {
      const setup = await config();
      return {
        ...setup,
        config: {
          ...setup.config,
          "max_capacity_gb": capacityBytes / 2 ** 30,
          // Other cases test splitting: here an object is one value.
          "max_value_bytes": 65_536,
        },
      };
    };
    const bounds = name.includes("no list") ? {} : { boundedConfig };
    Deno.test(`connector adapter, ${name}: ${promise}`, () => {
      return run({ module: connector, config, ...bounds });
    });
  }
}
