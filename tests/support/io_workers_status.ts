/** A program that starts worker threads, prints their status, and ends without ending them. */
import { IoWorkers } from "../../src/base/io/io_workers.ts";

const workers = new IoWorkers({ count: 1 });
// A thread that starts keeps no process alive either.
const timer = setInterval(() => {}, 1000);
await workers.start();
clearInterval(timer);
await Deno.stdout.write(new TextEncoder().encode(JSON.stringify(workers.status)));
