import { assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import filePool from "../../adapters/file_pool.ts";
import fs from "../../adapters/fs.ts";
import type { L2AdapterModule } from "../../src/adapter/contract.ts";
import { adapterConformanceCases } from "../../src/testing/mod.ts";
import { loopMount, type Mount, mountObstacle, tmpfsMount } from "./lab/loop_mount.ts";
import { notRun } from "./lab/not_run.ts";
import { filePoolConfig } from "../support/file_pool_config.ts";
import { openFs } from "../support/fs_adapter.ts";
import { testKeys, testLayout } from "../support/objects.ts";
import { sealedObject } from "../support/sealed_objects.ts";

interface Variant {
  readonly module: L2AdapterModule;
  /** The configuration for a case with its own directory. */
  readonly configIn: (directory: string, promise: string) => Readonly<Record<string, unknown>>;
}

function fsVariant(options: Readonly<Record<string, unknown>>): Variant {
  return { module: fs, configIn: (directory) => ({ base_path: directory, ...options }) };
}

const variants: Readonly<Record<string, Variant>> = {
  "fs": fsVariant({}),
  "fs, durability full": fsVariant({ durability: "full" }),
  "fs, LMCache's layout with checksums": fsVariant({
    file_layout: "lmcache",
    accept_unsealed: true,
    checksum: "crc32",
  }),
  "fs, past the page cache": fsVariant({ use_odirect: true }),
  "file_pool": { module: filePool, configIn: filePoolConfig },
};

/** What differs between file systems: direct I/O, names and space. ext4 gets all variants. */
const FOR_EACH = ["fs, past the page cache", "file_pool"];

const fileSystems: Readonly<Record<string, () => Promise<Mount>>> = {
  ext4: () => loopMount("ext4"),
  xfs: () => loopMount("xfs"),
  tmpfs: () => tmpfsMount(),
};

for (const [type, mountOne] of Object.entries(fileSystems)) {
  Deno.test(`conformance on ${type}`, async (t) => {
    const obstacle = await mountObstacle(type as "ext4" | "xfs" | "tmpfs");
    if (obstacle !== undefined) return await notRun(t, obstacle);
    const mount = await mountOne();
    let cases = 0;
    for (const [name, { module, configIn }] of Object.entries(variants)) {
      if (type !== "ext4" && !FOR_EACH.includes(name)) continue;
      for (const { name: promise, run } of adapterConformanceCases) {
        const directory = join(mount.path, String(cases++));
        const config = () => ({
          config: configIn(directory, promise),
          [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
        });
        await t.step(`${name}: ${promise}`, () => run({ module, config }));
      }
    }
    await t.step("use_odirect never fails a store, and says what it came to", async () => {
      const errors: string[] = [];
      const basePath = join(mount.path, "direct");
      await using adapter = await openFs({ base_path: basePath, use_odirect: true }, {
        onError: ({ message }) => void errors.push(message),
      });
      const objects = testKeys(20).map((key, n) => sealedObject(key, testLayout(4096 * n + n)));
      const { stored } = await adapter.store(objects, { signal: new AbortController().signal });
      assertEquals(stored.popcount(), objects.length);
      const { io } = adapter.reportStatus?.() as { io: string };
      assertMatch(io, /^(direct|buffered: O_DIRECT was refused: .+)$/);
      assertEquals(errors.length, io === "direct" ? 0 : 1, `what is reported: ${errors}`);
    });
    await t.step("nothing is left open: it can be unmounted", async () => {
      await mount[Symbol.asyncDispose]();
    });
  });
}
