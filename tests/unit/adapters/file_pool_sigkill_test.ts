import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import { delay } from "@std/async";
import { join } from "@std/path";
import { concatParts } from "../../../src/adapter/contract.ts";
import { decodeHeader } from "../../../adapters/_file_pool/slot_format.ts";
import { PoolGeometry } from "../../../adapters/_file_pool/pool_geometry.ts";
import { childCommand } from "../../support/child.ts";
import { testKeys } from "../../support/objects.ts";
import { seededRandom } from "../../support/random.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import {
  KILLED_BYTES,
  KILLED_POOL,
  killedObject,
  OBJECTS,
  STEADY_OBJECTS,
  VERSIONS,
} from "./file_pool_killed.ts";
import { call, openPool, statusOf } from "./file_pool_tools.ts";

const KILLS = 24;
const LONGEST_LIFE_MS = 80;

const program = new URL("./file_pool_store_forever.ts", import.meta.url);
const keys = testKeys(OBJECTS);
const versions = keys.map((key) => {
  return Array.from({ length: VERSIONS }, (_, v) => concatParts(killedObject(key, v).parts));
});

/** Starts a child that stores into a pool, and kills it after `lifeMs`. */
async function storeAndKill(
  path: string,
  version: number,
  way: "direct" | "cached",
  lifeMs: number,
): Promise<void> {
  const child = childCommand(program, { args: [path, String(version), way] }).spawn();
  const output = child.stdout.getReader();
  await output.read();
  await delay(lifeMs);
  child.kill("SIGKILL");
  const { signal } = await child.status;
  assertEquals(signal, "SIGKILL");
  await output.cancel();
}

/**
 * Counts slots with a header; the difference to the complete ones is the number of interrupted
 * stores.
 */
async function countHeaders(path: string): Promise<number> {
  const { slots, params: { slot_bytes: slotBytes, files } } = KILLED_POOL;
  const geometry = new PoolGeometry({ slots, slotBytes, files });
  let count = 0;
  for (let slot = 0; slot < slots; slot++) {
    const { file, offset } = geometry.placeOf(slot);
    using handle = await Deno.open(join(path, `slots-${file}.pool`));
    await handle.seek(offset, Deno.SeekMode.Start);
    const page = new Uint8Array(4096);
    await handle.read(page);
    if (decodeHeader(page) !== undefined) count++;
  }
  return count;
}

const seed = Number(Deno.env.get("KVTIER_TEST_SEED") ?? Math.floor(Math.random() * 2 ** 31));

Deno.test(`file_pool: ${KILLS} kills at random moments tear no object and lose only what was being written, seed ${seed}`, async () => {
  const random = seededRandom(seed);
  await using directory = await tempDirectory();
  const { path } = directory;
  let cut = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    await storeAndKill(
      path,
      random.below(1000),
      kill % 3 === 2 ? "direct" : "cached",
      random.below(LONGEST_LIFE_MS),
    );
    const headers = await countHeaders(path);
    await using adapter = await openPool(path, KILLED_POOL);
    const { recoveredFrom, usedSlots } = statusOf(adapter);
    assertEquals(recoveredFrom, "slots");
    cut += headers - Number(usedSlots);
    const byteLength = KILLED_BYTES;
    const rooms = keys.map((key) => ({ key, parts: [new Uint8Array(byteLength)], byteLength }));
    const loaded = await adapter.load(rooms, call);
    assertEquals(loaded.popcount(), usedSlots);
    assertEquals(loaded.countLeadingOnes() >= STEADY_OBJECTS, true, `lost: ${loaded}`);
    for (const index of loaded.indices()) {
      const bytes = rooms[index]?.parts[0] ?? new Uint8Array();
      const isWhole = versions[index]?.some((version) => Buffer.compare(version, bytes) === 0);
      assert(isWhole, `object ${index} is torn`);
    }
    await adapter[Symbol.asyncDispose]();
    // The next opening must rebuild the index, too.
    await Deno.remove(join(path, "pool.index"));
  }
  // Otherwise no kill interrupted a write.
  assert(cut > 0, "no store was cut");
});
