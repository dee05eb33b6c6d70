// A cache in use, whose metrics Deno sends to a collector. Prints the status as a
// line of JSON; closes the cache when it gets a byte, and ends at the end of its input.
import { openBusyCache, use } from "./busy_cache.ts";

const cache = await openBusyCache({ metrics: { salts: Deno.args.includes("--salts") } });
await use(cache, 1);
await use(cache, 2);
const salts = Object.fromEntries(cache.usageBySalt());
Deno.stdout.writeSync(
  new TextEncoder().encode(`${JSON.stringify({ status: cache.reportStatus(), salts })}\n`),
);
await Deno.stdin.read(new Uint8Array(1));
await cache.close();
while (await Deno.stdin.read(new Uint8Array(1)) !== null);
