import filePool from "../../adapters/file_pool.ts";
import { adapterConformanceCases } from "../../src/testing/mod.ts";
import { filePoolConfig } from "../support/file_pool_config.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const variants: Record<string, Readonly<Record<string, unknown>>> = {
  "as it is": {},
  "past the page cache": { use_direct_io: true, files: 1 },
};

/** Cases that depend on how bytes are transferred; all others run with one configuration only. */
const movesBytes = /gives back|buffers|parts|concurrent|aborted|restart/;

for (const [name, options] of Object.entries(variants)) {
  for (const { name: promise, run } of adapterConformanceCases) {
    if (name !== "as it is" && !movesBytes.test(promise)) continue;
    const config = async () => {
      const directory = await tempDirectory();
      const config = filePoolConfig(directory.path, promise, options);
      return { config, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
    };
    Deno.test(`file_pool adapter, ${name}: ${promise}`, () => run({ module: filePool, config }));
  }
}
