/**
 * Closes a cache before the program ends: `deno run -A docs/examples/stop.ts DIR`. Ctrl-C, SIGTERM,
 * or a line on stdin end it.
 */
import { HostDevice, ObjectKey, TieredCache } from "@kvtier/kvtier";

const [directory = "./kv-cache"] = Deno.args;
const cache = await TieredCache.open({
  device: new HostDevice(),
  l2: [{ type: "fs", base_path: directory }],
  store: { flushIdleMs: 60_000 },
});

/** Closes the cache and ends the program; `Deno.exit()` alone does not run `await using`. */
async function stop(code: number): Promise<never> {
  const { unwritten } = await cache.close({ deadlineMs: 5_000 });
  for (const { adapter, reason, objects } of unwritten) {
    print(`${objects} objects are not in the ${adapter.type} adapter: ${reason}`);
  }
  print("closed");
  Deno.exit(code);
}

Deno.addSignalListener("SIGINT", () => stop(130));
if (Deno.build.os !== "windows") Deno.addSignalListener("SIGTERM", () => stop(143));

const key = new ObjectKey({ chunkHash: new Uint8Array(32), model: "example" });
const layout = { byteLength: 1024, fingerprint: new Uint8Array(8) };
for (const reservation of cache.reserveWrite([key], layout)) {
  if (reservation.status !== "success") continue;
  cache.device.upload(reservation.staged.range, [new Uint8Array(1024)]);
  cache.finishWrite([reservation.staged]);
}
print("ready");
await Deno.stdin.read(new Uint8Array(1));
await stop(0);

function print(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}
