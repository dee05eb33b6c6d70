import { assert, assertEquals } from "@std/assert";
import filePool from "../../../../adapters/file_pool.ts";
import fs from "../../../../adapters/fs.ts";
import mock from "../../../../adapters/mock.ts";
import type { L2AdapterModule, ListedObject } from "../../../../src/adapter/contract.ts";
import type { StoredObject } from "../../../../src/l2/guard_listener.ts";
import { writeTrailer } from "../../../../src/adapter/object_trailer.ts";
import { testKey, testKeys, testLayout } from "../../../support/objects.ts";
import { emptyObject, sealedObject } from "../../../support/sealed_objects.ts";
import { tempDirectory } from "../../../support/temp_directory.ts";
import { masterKeyHex, openGuard, serdeStatus } from "./chains.ts";

const KEY_NAME = "KVTIER_TEST_MASTER_KEY";
Deno.env.set(KEY_NAME, masterKeyHex(7));
const aesgcm = { type: "aesgcm", "master_key_env": KEY_NAME };
const zstd = { type: "zstd", threads: 1 };
/** The nonce, the tag and the outer trailer. */
const AES_BYTES = 28 + 64;

const adapters: Readonly<Record<string, [L2AdapterModule, (path: string) => object]>> = {
  fs: [fs, (path) => ({ "base_path": path })],
  "file_pool": [filePool, (path) => ({
    "pool_size": 16,
    "backend_params": { "file_path": path, "slot_bytes": 8192 },
  })],
  mock: [mock, () => ({ "max_size_gb": 1, "mock_bandwidth_gb": 1000 })],
};

const layout = testLayout(4096);
const keys = testKeys(4);

for (const [name, [module, config]] of Object.entries(adapters)) {
  for (const [chain, serde] of Object.entries({ aesgcm, zstd, both: [zstd, aesgcm] })) {
    Deno.test(`${name} with ${chain}: everything about room is about what is kept`, async () => {
      await using directory = await tempDirectory();
      const given = { ...config(directory.path) } as Readonly<Record<string, unknown>>;
      await using opened = await openGuard(module, given, serde);
      const { guard, errors } = opened;
      const told: StoredObject[] = [];
      guard.addListener({ stored: (objects) => told.push(...objects) });
      // The second half of each is zeros.
      const objects = keys.map((key) => {
        const object = sealedObject(key, layout);
        object.parts[0]?.fill(0, 2048);
        writeTrailer(key, layout, object.parts);
        return object;
      });
      assertEquals((await guard.store(objects)).done.popcount(), 4);

      const listed = await Array.fromAsync(guard.list());
      const sizeOf = (id: string): number =>
        listed.find(({ key }: ListedObject) => key.id === id)?.byteLength ?? NaN;
      const plainBytes = 4096 + 64;
      for (const { key, byteLength, loadBytes } of listed) {
        if (chain === "aesgcm") {
          assertEquals([byteLength, loadBytes], [plainBytes + AES_BYTES, plainBytes]);
        } else {
          assert(byteLength < plainBytes, `${byteLength} bytes`);
          assertEquals(loadBytes, undefined);
        }
        assertEquals(told.find((object) => object.key.id === key.id)?.byteLength, byteLength);
      }
      const kept = keys.reduce((sum, { id }) => sum + sizeOf(id), 0);
      const { storedBytes } = guard.reportStatus();
      const { givenBytes, keptBytes, scratchBytes } = serdeStatus(guard);
      assertEquals([storedBytes, keptBytes], [kept, kept]);
      assertEquals([givenBytes, scratchBytes], [4 * plainBytes, 0]);
      assertEquals((await guard.usage())?.usedBytes, kept);

      const [first] = keys;
      assert(first !== undefined);
      const { done: deleted, bytes } = await guard.delete([first, testKey(99)]);
      assertEquals([deleted.test(0), deleted.test(1), bytes], [true, false, sizeOf(first.id)]);
      assertEquals((await guard.usage())?.usedBytes, kept - sizeOf(first.id));
      await guard.store(objects.slice(0, 1));
      const { done } = await guard.load(keys.map((key) => emptyObject(key, layout)));
      assertEquals(done.popcount(), 4);
      assertEquals(guard.reportStatus().loadedBytes, 4 * plainBytes);
      assertEquals(errors, []);
    });
  }
}

Deno.test("the largest object that an adapter takes leaves room for what is added", async () => {
  await using directory = await tempDirectory();
  const params = { "file_path": directory.path, "slot_bytes": 8192 };
  const config = { "pool_size": 2, "backend_params": params };
  for (const [serde, added] of [[aesgcm, AES_BYTES], [zstd, 80], [[zstd, aesgcm], 108]] as const) {
    await using opened = await openGuard(filePool, config, serde);
    const { guard } = opened;
    assertEquals(guard.capabilities.maxObjectBytes, 8192 - added);
    assertEquals(guard.capabilities.acceptsShortObjects, undefined);
    assertEquals(guard.capabilities.variableLength, serde === aesgcm ? undefined : true);
    const largest = testLayout(8192 - added - 64);
    const object = sealedObject(testKey(1), largest);
    crypto.getRandomValues(object.parts[0] as Uint8Array<ArrayBuffer>);
    assertEquals((await guard.store([object])).done.popcount(), 1);
    await guard.delete([object.key]);
  }
});
