// Stores versions of a few objects into a small pool, with evictions, replacements and deletions,
// until it is killed. Prints a line at the start, and one after each batch.
import { testKeys } from "../../support/objects.ts";
import { call, openPool } from "./file_pool_tools.ts";
import { KILLED_POOL, killedObject, OBJECTS, STEADY_OBJECTS } from "./file_pool_killed.ts";

const [path = "", first = "0", direct = ""] = Deno.args;
const keys = testKeys(OBJECTS);
const params = { ...KILLED_POOL.params, "use_direct_io": direct === "direct" };
const adapter = await openPool(path, { ...KILLED_POOL, params });
// These are never stored again, and must survive everything else.
const steady = keys.slice(0, STEADY_OBJECTS);
const found = await adapter.lookupAndLock(steady, { ...call, prefix: false });
const missing = steady.filter((_, i) => !found.test(i));
if (missing.length > 0) {
  await adapter.store(missing.map((key) => killedObject(key, 0)), call);
  await adapter.lookupAndLock(missing, { ...call, prefix: false });
}
await Deno.stdout.write(new TextEncoder().encode("storing\n"));
for (let version = Number(first);; version++) {
  const from = STEADY_OBJECTS + version % 3;
  await adapter.store(keys.slice(from, from + 4).map((key) => killedObject(key, version)), call);
  await adapter.delete?.(keys.slice(-1), call);
}
