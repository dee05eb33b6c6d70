import { assertEquals } from "@std/assert";
import { ObjectKey } from "../../src/keys/object_key.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { childCommand } from "../support/child.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const example = new URL("../../docs/examples/stop.ts", import.meta.url);
const key = new ObjectKey({ chunkHash: new Uint8Array(32), model: "example" });
const layout = { byteLength: 1024, fingerprint: new Uint8Array(8) };

/** Number of objects of the example in a directory. */
async function storedIn(directory: string): Promise<number> {
  const l2 = [{ type: "fs", base_path: directory }];
  await using cache = await TieredCache.open({ device: new HostDevice(), l2 });
  using hit = await cache.match([key], layout);
  return hit.length;
}

/** Ends the example after it has stored an object; returns its output and exit code. */
async function endExample(
  directory: string,
  end: (child: Deno.ChildProcess) => Promise<void> | void,
): Promise<[text: string, code: number]> {
  const command = childCommand(example, { args: [directory], stdin: "piped" });
  await using child = command.spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let isEnded = false;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += value;
    if (!isEnded && text.includes("ready")) {
      isEnded = true;
      await end(child);
    }
  }
  // In case it is still running.
  await child.stdin.close().catch(() => {});
  return [text, (await child.status).code];
}

const ways: Record<string, [(child: Deno.ChildProcess) => Promise<void> | void, number]> = {
  "Ctrl-C": [(child) => child.kill("SIGINT"), 130],
  SIGTERM: [(child) => child.kill("SIGTERM"), 143],
  "Deno.exit()": [(child) => child.stdin.close(), 0],
};
for (const [name, [end, expected]] of Object.entries(ways)) {
  Deno.test(`a program that closes its cache on ${name} loses nothing`, async () => {
    await using directory = await tempDirectory();
    assertEquals(await endExample(directory.path, end), ["ready\nclosed\n", expected]);
    assertEquals(await storedIn(directory.path), 1);
  });
}

Deno.test("control: a killed program loses queued objects", async () => {
  await using directory = await tempDirectory();
  const [text] = await endExample(directory.path, (child) => child.kill("SIGKILL"));
  assertEquals([text, await storedIn(directory.path)], ["ready\n", 0]);
});

for (const type of ["fs", "dram", "file_pool", "zstd"]) {
  Deno.test(`a program that never closes its cache with ${type} ends`, async () => {
    await using directory = await tempDirectory();
    const places: Record<string, Record<string, unknown>> = {
      fs: { base_path: directory.path },
      // Its threads end after they have been idle for a while.
      zstd: { type: "dram", "max_capacity_gb": 0.01, serde: { type: "zstd" } },
      dram: { max_capacity_gb: 0.01 },
      "file_pool": {
        pool_size: 16,
        backend_params: { file_path: directory.path, slot_bytes: 8192 },
      },
    };
    const program = `
      import { HostDevice, ObjectKey, TieredCache } from "${new URL(
      "../../mod.ts",
      import.meta.url,
    )}";
      const l2 = [${JSON.stringify({ type, ...places[type] })}];
      const cache = await TieredCache.open({ device: new HostDevice(), l2 });
      const keys = [new ObjectKey({ chunkHash: new Uint8Array(32), model: "example" })];
      const layout = { byteLength: 1024, fingerprint: new Uint8Array(8) };
      const [reservation] = cache.reserveWrite(keys, layout);
      cache.device.upload(reservation.staged.range, [new Uint8Array(1024)]);
      cache.finishWrite([reservation.staged]);
      await cache.flush();
      cache.ttl(keys, 3_600_000);
      cache.clearL1();
      { using hit = await cache.match(keys, layout); console.log(hit.length); }
    `;
    const path = `${directory.path}.ts`;
    await Deno.writeTextFile(path, program);
    try {
      const { stdout, code } = await childCommand(new URL(`file://${path}`), {
        permissions: ["-A", "--config", "deno.json"],
        shell: ["timeout", "20"],
      }).output();
      assertEquals([new TextDecoder().decode(stdout), code], ["1\n", 0], "it ends by itself");
    } finally {
      await Deno.remove(path);
    }
  });
}
