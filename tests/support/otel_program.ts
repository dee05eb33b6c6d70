// A cache in use, whose metrics Deno sends to a collector. Prints the status at the end as JSON.
import { openBusyCache, use } from "./busy_cache.ts";

await using cache = await openBusyCache({ metrics: { salts: Deno.args.includes("--salts") } });
await use(cache, 1);
await use(cache, 2);
const salts = Object.fromEntries(cache.usageBySalt());
Deno.stdout.writeSync(
  new TextEncoder().encode(JSON.stringify({ status: cache.reportStatus(), salts })),
);
