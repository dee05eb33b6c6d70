/** The program of worker threads, on a file system that does not answer for paths with `hang`. */
import { workerData } from "node:worker_threads";

const { gate } = workerData as { gate: Int32Array<SharedArrayBuffer> };
const { lstatSync } = Deno;

Deno.lstatSync = (path) => {
  if (String(path).includes("hang")) Atomics.wait(gate, 0, 0);
  return lstatSync(path);
};
await import("../../src/base/io/io_program.ts");
