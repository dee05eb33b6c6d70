import { assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { directoryOf } from "../support/module_files.ts";

const project = fromFileUrl(new URL("../../", import.meta.url));

/** Source of a module that must not be run. */
const DECOY = "console.log('decoy: ' + import.meta.url); export default {};";

/** A program that uses all adapters and transforms with separate modules or threads. */
const PROGRAM = `
  import { HostDevice, ObjectKey, TieredCache } from "${join(project, "mod.ts")}";
  const base_path = await Deno.makeTempDir();
  const l2 = ["dram", "fs"].map((type) => ({
    type,
    serde: { type: "zstd" },
    ...(type === "fs" ? { base_path, use_odirect: true } : { max_capacity_gb: 0.1 }),
  }));
  const cache = await TieredCache.open({ device: new HostDevice(), l2 });
  const keys = [new ObjectKey({ chunkHash: new Uint8Array(32), model: "m" })];
  const layout = { byteLength: 65536, fingerprint: new Uint8Array(8) };
  const [reservation] = cache.reserveWrite(keys, layout);
  cache.device.upload(reservation.staged.range, [new Uint8Array(65536).fill(7)]);
  cache.finishWrite([reservation.staged]);
  await cache.flush();
  cache.clearL1();
  const found = [];
  for (const { id } of cache.listAdapters()) {
    { using hit = await cache.match(keys, layout); found.push(hit.length); }
    cache.clearL1();
    await cache.removeAdapter(id, { mode: "drop" });
  }
  await cache.close();
  await Deno.remove(base_path, { recursive: true });
  console.log(found.join());
`;

async function deno(args: readonly string[], cwd: string): Promise<string> {
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd,
    env: { NO_COLOR: "1" },
    stdin: "null",
    signal: AbortSignal.timeout(60_000),
  }).output();
  return [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("");
}

Deno.test("a bundled program runs the adapters in it, and no file next to it", async () => {
  await using directory = await directoryOf({ "main.ts": PROGRAM });
  const bundle = join(directory.path, "dist", "app.js");
  const config = ["--config", join(project, "deno.json")];
  await deno(["bundle", "-q", ...config, "-o", bundle, "main.ts"], directory.path);
  const run = ["run", "-A", "-q", "--no-config", bundle];
  assertEquals(await deno(run, directory.path), "1,1\n", "without a folder adapters/");

  for (const folder of ["adapters", "dist"]) {
    await Deno.mkdir(join(directory.path, folder), { recursive: true });
    for (const name of ["mod", "fs", "dram", "zstd_worker", "file_worker_program", "io_program"]) {
      await Deno.writeTextFile(join(directory.path, folder, `${name}.ts`), DECOY);
    }
  }
  assertEquals(await deno(run, directory.path), "1,1\n", "with files of those names");
});
