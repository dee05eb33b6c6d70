import fs from "../../adapters/fs.ts";
import { adapterConformanceCases } from "../../src/testing/mod.ts";
import { tempDirectory } from "../support/temp_directory.ts";

for (const durability of ["none", "file", "full"]) {
  const config = async () => {
    const directory = await tempDirectory();
    const dispose = () => directory[Symbol.asyncDispose]();
    return { config: { base_path: directory.path, durability }, [Symbol.asyncDispose]: dispose };
  };
  for (const { name, run } of adapterConformanceCases) {
    Deno.test(`fs adapter, durability ${durability}: ${name}`, () => run({ module: fs, config }));
  }
}
