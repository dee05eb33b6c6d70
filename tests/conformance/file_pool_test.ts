import filePool from "../../adapters/file_pool.ts";
import { adapterConformanceCases } from "../../src/testing/mod.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const variants: Record<string, Readonly<Record<string, unknown>>> = {
  "as it is": {},
  "past the page cache": { use_direct_io: true, files: 1 },
};

/** Slots large enough for the largest object of a case, and enough for all of its objects. */
function sizeFor(promise: string): { slots: number; slotBytes: number } {
  if (promise.includes("several MiB")) return { slots: 4, slotBytes: 6 * 2 ** 20 };
  if (/concurrent|aborted/.test(promise)) return { slots: 24, slotBytes: 200_100 };
  if (/batch of 300|chain/.test(promise)) return { slots: 320, slotBytes: 4096 };
  return { slots: 60, slotBytes: 72_000 };
}

/** What does not depend on how bytes are moved is tested in one way only. */
const movesBytes = /gives back|buffers|parts|concurrent|aborted|restart/;

for (const [name, options] of Object.entries(variants)) {
  for (const { name: promise, run } of adapterConformanceCases) {
    if (name !== "as it is" && !movesBytes.test(promise)) continue;
    const { slots, slotBytes } = sizeFor(promise);
    const config = async () => {
      const directory = await tempDirectory();
      const params = { "file_path": directory.path, "slot_bytes": slotBytes, ...options };
      const dispose = () => directory[Symbol.asyncDispose]();
      const config = { "pool_size": slots, "backend_params": params };
      return { config, [Symbol.asyncDispose]: dispose };
    };
    Deno.test(`file_pool adapter, ${name}: ${promise}`, () => run({ module: filePool, config }));
  }
}
