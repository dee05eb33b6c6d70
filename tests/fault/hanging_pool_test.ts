import { assert, assertEquals, assertGreater } from "@std/assert";
import { join } from "@std/path";
import type { AdapterError } from "../../src/adapter/contract.ts";
import { testObject } from "../support/fs_adapter.ts";
import { testKeys } from "../support/objects.ts";
import { waitUntil } from "../support/wait_until.ts";
import { load, openPool, store } from "../unit/adapters/file_pool_tools.ts";
import { hangingMount, hangingObstacle } from "./lab/hanging_mount.ts";
import { notRun } from "./lab/not_run.ts";

const EVERYTHING = "getattr open create read write flush release truncate rename unlink readdir";
const keys = testKeys(60);

for (const isDirect of [false, true]) {
  for (const [name, calls] of [["everything", EVERYTHING], ["close", "flush release"]] as const) {
    const how = isDirect ? ", past the page cache" : "";
    Deno.test(`file_pool: a hung file system blocks nothing else: ${name}${how}`, async (t) => {
      const obstacle = await hangingObstacle();
      if (obstacle !== undefined) return await notRun(t, obstacle);
      await using mount = await hangingMount();
      const path = join(mount.path, "pool");
      const params = { "slot_bytes": 4096, "use_direct_io": isDirect };
      const errors: AdapterError[] = [];
      const environment = { onError: (error: AdapterError) => void errors.push(error) };
      const adapter = await openPool(path, { slots: 60, params }, environment);
      assertEquals(await store(adapter, keys.slice(0, 30)), "1".repeat(30));
      await mount.hang(...calls.split(" "));

      let turns = 0;
      const turning = setInterval(() => turns++, 5);
      const giveUp = new AbortController();
      const rooms = keys.slice(0, 30).map((key) => {
        return { key, parts: [new Uint8Array(1000)], byteLength: 1000 };
      });
      const loading = adapter.load(rooms, giveUp);
      const storing = adapter.store(keys.slice(30).map((key) => testObject(key)), giveUp);
      await waitUntil(() => turns > 20);
      // Reads many other files concurrently.
      const own = new URL(import.meta.url);
      await Promise.all(Array.from({ length: 40 }, () => Deno.readFile(own)));
      giveUp.abort();
      const closing = adapter[Symbol.asyncDispose]();
      await waitUntil(() => turns > 40);
      clearInterval(turning);
      assert(!await mount.expired(), "what hangs has not kept it waiting");
      if (name === "everything") assertGreater((await mount.hung()).length, 0);

      await mount.hang();
      await Promise.all([loading, storing, closing]);
      assertEquals(errors.filter(({ operation }) => operation !== "open"), []);
      await using again = await openPool(path, { slots: 60, params }, environment);
      assert((await load(again, keys)).startsWith("1".repeat(30)));
    });
  }
}
