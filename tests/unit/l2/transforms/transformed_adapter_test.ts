import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import fs from "../../../../adapters/fs.ts";
import { Bitmap, concatParts, type L2Adapter } from "../../../../src/adapter/contract.ts";
import { tailBytes, writeTrailer } from "../../../../src/adapter/object_trailer.ts";
import type { Transform } from "../../../../src/l2/transforms/transform.ts";
import { TransformChain } from "../../../../src/l2/transforms/transform_chain.ts";
import { transformAdapter } from "../../../../src/l2/transforms/transformed_adapter.ts";
import { mapAdapter, moduleOf } from "../../../support/adapters.ts";
import { assertSameBytes } from "../../../support/bytes.ts";
import { testKey, testKeys, testLayout } from "../../../support/objects.ts";
import { emptyObject, sealedObject } from "../../../support/sealed_objects.ts";
import { tempDirectory } from "../../../support/temp_directory.ts";
import { masterKeyHex, type OpenGuard, openGuard, serdeStatus } from "./chains.ts";

for (const n of [1, 2]) Deno.env.set(`KVTIER_TEST_MASTER_KEY_${n}`, masterKeyHex(n));
const aesgcm = { type: "aesgcm", "master_key_env": "KVTIER_TEST_MASTER_KEY_1" };
const otherAesgcm = { ...aesgcm, "master_key_env": "KVTIER_TEST_MASTER_KEY_2" };
const zstd = { type: "zstd", threads: 1 };
const chains: Readonly<Record<string, unknown>> = {
  none: undefined,
  aesgcm,
  "aesgcm with another master key": otherAesgcm,
  zstd,
  "zstd and aesgcm": [zstd, aesgcm],
};

const layout = testLayout(4096);
const keys = testKeys(5);
const objects = keys.map((key) => sealedObject(key, layout));

/** Loads the objects of all keys; returns the bits of those with the right bytes. */
async function loadAll({ guard }: OpenGuard, wanted = layout): Promise<string> {
  await guard.lookup(keys, { prefix: false });
  const rooms = keys.map((key) => emptyObject(key, wanted));
  const { done } = await guard.load(rooms);
  for (const i of done.indices()) {
    const [room, object] = [rooms[i], objects[i]];
    assert(room !== undefined && object !== undefined);
    assertSameBytes(concatParts(room.parts), concatParts(object.parts), `object ${i}`);
  }
  return Array.from(keys, (_, i) => done.test(i) ? "1" : "0").join("");
}

async function filesIn(path: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(path)) {
    if (!isDirectory) names.push(name);
    else if (name !== "tmp") {
      names.push(...(await filesIn(join(path, name))).map((file) => `${name}/${file}`));
    }
  }
  return names.sort();
}

for (const [writer, written] of Object.entries(chains)) {
  Deno.test(`what was stored with ${writer}, others with the same find, and the rest leave it`, async () => {
    await using directory = await tempDirectory();
    const config = { "base_path": directory.path };
    {
      await using opened = await openGuard(fs, config, written);
      assertEquals((await opened.guard.store(objects)).done.popcount(), 5);
    }
    const files = await filesIn(directory.path);
    assertEquals(files.length, 5);
    for (const [reader, serde] of Object.entries(chains)) {
      await using opened = await openGuard(fs, config, serde);
      assertEquals(await loadAll(opened), reader === writer ? "11111" : "00000", reader);
      assertEquals(await filesIn(directory.path), files, `${reader} removes nothing`);
      const { damagedObjects, missedLoads } = opened.guard.reportStatus();
      const { layout: _, ...others } = damagedObjects;
      assertEquals(others, {}, reader);
      assertEquals(missedLoads, reader === writer ? 0 : 5);
    }
    await using again = await openGuard(fs, config, written);
    assertEquals(await loadAll(again), "11111");
  });
}

Deno.test("a wrong master key is a miss that is counted, and removes nothing", async () => {
  await using directory = await tempDirectory();
  const config = { "base_path": directory.path };
  await using opened = await openGuard(fs, config, aesgcm);
  await opened.guard.store(objects);
  await using other = await openGuard(fs, config, otherAesgcm);
  assertEquals(await loadAll(other), "00000");
  assertEquals(other.guard.reportStatus().damagedObjects, { layout: 5 });
  assertEquals(serdeStatus(other.guard).refusedObjects, { layout: 5 });
  assertEquals(await loadAll(opened), "11111");
});

Deno.test("an object of another layout is a miss, and stays for readers with that layout", async () => {
  await using directory = await tempDirectory();
  await using opened = await openGuard(fs, { "base_path": directory.path }, [zstd, aesgcm]);
  await opened.guard.store(objects);
  const other = { ...layout, fingerprint: new Uint8Array(8).fill(1) };
  assertEquals(await loadAll(opened, other), "00000");
  assertEquals(opened.guard.reportStatus().damagedObjects, { layout: 5 });
  assertEquals(await loadAll(opened), "11111");
});

for (const [name, serde] of Object.entries({ aesgcm, both: [zstd, aesgcm] })) {
  Deno.test(`${name}: a file that was put in the place of another is a miss, counted and removed`, async () => {
    await using directory = await tempDirectory();
    const config = { "base_path": directory.path };
    await using opened = await openGuard(fs, config, serde);
    const tenants = ["a", "b"].map((cacheSalt) => testKey(1, { cacheSalt }));
    const [mine, yours] = tenants.map((key) => sealedObject(key, layout));
    assert(mine !== undefined && yours !== undefined);
    await opened.guard.store([mine, yours]);
    const files = await filesIn(directory.path);
    const [from, to] = ["a", "b"].map((salt) => {
      const name = files.find((name) => name.endsWith(`@${salt}.data`)) ?? "";
      return join(directory.path, name);
    });
    assert(from !== undefined && to !== undefined);
    // Anyone with write access to the directory can write a valid trailer: it has no secret.
    const bytes = await Deno.readFile(from);
    const tail = tailBytes(mine.key);
    const fingerprint = bytes.slice(-64).slice(48, 56);
    writeTrailer(yours.key, { byteLength: bytes.byteLength - tail, fingerprint }, [bytes]);
    await Deno.writeFile(to, bytes);

    const room = emptyObject(yours.key, layout);
    const { done } = await opened.guard.load([room]);
    assertEquals(done.test(0), false);
    assertSameBytes(concatParts(room.parts), new Uint8Array(room.byteLength), "nothing was served");
    assertEquals(opened.guard.reportStatus().damagedObjects, { transform: 1 });
    assertEquals((await filesIn(directory.path)).length, 1);
    assertEquals((await opened.guard.load([emptyObject(mine.key, layout)])).done.popcount(), 1);
  });
}

for (const [name, serde] of Object.entries({ aesgcm, zstd, both: [zstd, aesgcm] })) {
  Deno.test(`${name}: damage costs one object, is counted and removed; the next store heals it`, async () => {
    await using directory = await tempDirectory();
    await using opened = await openGuard(fs, { "base_path": directory.path }, serde);
    const told: string[] = [];
    opened.guard.addListener({ damaged: (_, fault) => told.push(fault) });
    await opened.guard.store(objects);
    const [file = ""] = await filesIn(directory.path);
    const path = join(directory.path, file);
    const bytes = await Deno.readFile(path);
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    await Deno.writeFile(path, bytes);
    const held = await loadAll(opened);
    assertEquals(held.replaceAll("0", "").length, 4);
    assertEquals(opened.guard.reportStatus().damagedObjects, { "payload-checksum": 1 });
    assertEquals(told, ["payload-checksum"]);
    assertEquals((await filesIn(directory.path)).length, 4);
    await opened.guard.store(objects);
    assertEquals(await loadAll(opened), "11111");
    assertEquals(serdeStatus(opened.guard).scratchBytes, 0);
  });
}

/** A guarded adapter in memory with all capabilities, and `overrides`. */
function openMap(
  serde: unknown,
  overrides: Partial<L2Adapter> = {},
  held = new Map<string, Uint8Array<ArrayBuffer>>(),
): Promise<OpenGuard> {
  return openGuard(
    moduleOf(() => ({ ...mapAdapter(held), ...overrides }), "map"),
    {},
    serde,
  );
}

Deno.test("an adapter without optional methods has none with transforms either", async () => {
  await using opened = await openMap(aesgcm);
  const { guard } = opened;
  assertEquals([guard.canList, guard.canDelete], [false, false]);
  assertEquals(await guard.usage(), undefined);
  await guard.store(objects);
  assertEquals(await loadAll(opened), "11111");
});

Deno.test("no room is kept, whatever an adapter does", async () => {
  const failing: Readonly<Record<string, Partial<L2Adapter>>> = {
    "rejects": {
      store: () => Promise.reject(new Error("broken")),
      load: () => Promise.reject(new Error("broken")),
    },
    "throws": {
      store: () => {
        throw new Error("broken");
      },
      load: () => {
        throw new Error("broken");
      },
    },
    "answers nonsense": {
      store: () => Promise.resolve(undefined as never),
      load: () => Promise.resolve(new Bitmap(1)),
    },
    "claims what it has not filled": {
      load: (batch) => Promise.resolve(new Bitmap(batch.length, batch.length)),
    },
    "says too early what it takes back": {
      load: (batch, { onLoaded }) => {
        for (const i of batch.keys()) onLoaded?.(i);
        onLoaded?.(99);
        return Promise.resolve(new Bitmap(batch.length));
      },
    },
  };
  for (const [what, overrides] of Object.entries(failing)) {
    await using opened = await openMap(aesgcm, overrides);
    const { guard } = opened;
    const { done } = await guard.store(objects);
    assertEquals(done.popcount(), overrides.store === undefined ? 5 : 0, what);
    assertEquals(await loadAll(opened), "00000", what);
    assertEquals(serdeStatus(guard).scratchBytes, 0, what);
  }
});

Deno.test("an object that cannot be transformed costs only itself", async () => {
  await using opened = await openMap(aesgcm);
  const [first, ...others] = objects;
  assert(first !== undefined);
  const broken = {
    ...first,
    get parts(): never {
      throw new Error("gone");
    },
  };
  const { done } = await opened.guard.store([broken, ...others]);
  assertEquals([done.test(0), done.popcount()], [false, 4]);
  assertStringIncludes(opened.errors[0]?.message ?? "", "map: store failed: gone");
  assertEquals(await loadAll(opened), "01111");
});

Deno.test("what is more than the room is moved in groups", async () => {
  await using opened = await openMap(aesgcm);
  const large = testLayout(24 * 2 ** 20);
  const given = testKeys(3).map((key) => sealedObject(key, large));
  assertEquals((await opened.guard.store(given)).done.popcount(), 3);
  const rooms = given.map(({ key }) => emptyObject(key, large));
  assertEquals((await opened.guard.load(rooms)).done.popcount(), 3);
  assertEquals(serdeStatus(opened.guard).scratchBytes, 0);
});

/** Fails if loads wait for stores, which are held until `release` is called. */
async function loadsWhileStoresAreHeld<Loaded>(
  loading: Promise<Loaded>,
  release: () => void,
): Promise<Loaded> {
  let areHeld = true;
  // Loads that wait for stores end after them rather than hang.
  const patience = setTimeout(() => {
    areHeld = false;
    release();
  }, 30_000);
  const loaded = await loading;
  clearTimeout(patience);
  release();
  assert(areHeld, "loads waited for stores");
  return loaded;
}

Deno.test("loads do not wait for the memory of stores", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let isSlow = false;
  const held = new Map<string, Uint8Array<ArrayBuffer>>();
  const store: L2Adapter["store"] = async (batch, options) => {
    if (isSlow) await promise;
    return await mapAdapter(held).store(batch, options);
  };
  await using opened = await openMap(aesgcm, { store }, held);
  assertEquals((await opened.guard.store(objects)).done.popcount(), 5);
  isSlow = true;
  const large = testLayout(24 * 2 ** 20);
  const stores = [10, 20, 30].map((seed) =>
    opened.guard.store(testKeys(2, seed).map((key) => sealedObject(key, large)))
  );
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(await loadsWhileStoresAreHeld(loadAll(opened), resolve), "11111");
  for (const { done } of await Promise.all(stores)) assertEquals(done.popcount(), 2);
});

Deno.test("loads do not wait for objects of stores that are being transformed", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let isSlow = false;
  const gate: Transform = {
    identity: "gate",
    addedBytes: 0,
    async encode(parts) {
      if (isSlow) await promise;
      return parts;
    },
    decode: (bytes) => Promise.resolve(bytes),
    [Symbol.dispose]() {},
  };
  await using adapter = transformAdapter(mapAdapter(), {
    type: "map",
    chain: new TransformChain([gate], ["gate"]),
    onError: (error) => {
      throw error;
    },
  });
  const call = { signal: new AbortController().signal };
  assertEquals(String((await adapter.store(objects, call)).stored), "11111");
  isSlow = true;
  const others = testKeys(5, 10).map((key) => sealedObject(key, layout));
  const storing = adapter.store(others, call);
  const loading = adapter.load(keys.map((key) => emptyObject(key, layout)), call);
  assertEquals(String(await loadsWhileStoresAreHeld(loading, resolve)), "11111");
  assertEquals(String((await storing).stored), "11111");
});

Deno.test("closing ends what is under way", async () => {
  const { guard } = await openGuard(fs, { "base_path": "/nowhere/at/all" }, { ...zstd, level: 22 });
  const layout = testLayout(8 * 2 ** 20);
  const storing = guard.store(testKeys(2).map((key) => sealedObject(key, layout)));
  await guard.close();
  assertEquals((await storing).done.popcount(), 0);
});

Deno.test("no key is part of a status, an error or a file name", async () => {
  await using directory = await tempDirectory();
  await using opened = await openGuard(fs, { "base_path": directory.path }, aesgcm);
  await opened.guard.store(objects);
  await loadAll(opened);
  const said = JSON.stringify([
    opened.guard.reportStatus(),
    opened.errors.map(String),
    await filesIn(directory.path),
  ]);
  const secret = new Uint8Array(32).fill(1);
  for (const text of [secret.toHex(), secret.toBase64(), secret.toHex().slice(0, 16)]) {
    assert(!said.includes(text));
  }
  assertEquals(serdeStatus(opened.guard).transforms, ["aesgcm"]);
});
