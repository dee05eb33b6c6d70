import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import {
  type MatchOptions,
  PrefixCache,
  type PrefixCacheOptions,
  type PromptOptions,
} from "../../../src/engine/mod.ts";
import { kvLayout } from "../../../src/keys/kv_layout.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";
import { EngineTensors } from "../../support/kv_tensors.ts";
import { runs } from "../../support/runs.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const LAYOUT = kvLayout({ layers: 1, kvHeads: 1, headDim: 4, dtype: "f16", chunkTokens: 4 });
const OPTIONS: PrefixCacheOptions = { model: { name: "m" }, layout: LAYOUT };
const TOKENS = Array.from({ length: 17 }, (_, i) => i);

/** Names of tenants, some of which look like the encoding of others. */
const SALTS = [
  "alice",
  "alice@example.com",
  "alice%40example.com",
  "alice%2540example.com",
  "org/user",
  "org%2Fuser",
  "../../etc/passwd",
  "DOMAIN\\user",
  "two words",
  " ",
  "租户",
  "🤖",
  "e\u0301",
  "\u00e9",
  "@",
  "h-",
  "語".repeat(128),
];

async function open(
  l2: readonly { type: string }[] = [],
): Promise<{ cache: TieredCache; prefixes: PrefixCache } & AsyncDisposable> {
  const cache = await TieredCache.open({ device: new HostDevice(), l2 });
  const prefixes = new PrefixCache(cache, OPTIONS);
  return { cache, prefixes, [Symbol.asyncDispose]: () => cache[Symbol.asyncDispose]() };
}

function put(prefixes: PrefixCache, options: PromptOptions, seed = 1): void {
  using tensors = new EngineTensors(new HostDevice(), LAYOUT, 16).fill(seed);
  prefixes.put(TOKENS, tensors.kv, options);
}

async function hitTokens(prefixes: PrefixCache, options: MatchOptions): Promise<number> {
  using hit = await prefixes.match(TOKENS, options);
  return hit.tokens;
}

/** The first chunk's bytes of K under these options. */
async function foundBytes(prefixes: PrefixCache, options: MatchOptions): Promise<Uint8Array> {
  using tensors = new EngineTensors(new HostDevice(), LAYOUT, 16);
  using hit = await prefixes.match(TOKENS, options);
  hit.scatterTo(tensors.kv);
  return (await tensors.read())[0] as Uint8Array;
}

for (const layout of ["kvtier", "lmcache"]) {
  Deno.test(`any string is a separate salt, in files of the layout ${layout} too`, async () => {
    await using directory = await tempDirectory();
    const fs = {
      "type": "fs",
      "base_path": directory.path,
      "file_layout": layout,
      "accept_unsealed": layout === "lmcache",
    };
    {
      await using t = await open([fs]);
      for (const [seed, salt] of SALTS.entries()) {
        assertEquals(await hitTokens(t.prefixes, { salt }), 0, salt);
        put(t.prefixes, { salt }, seed);
      }
      assertEquals(await hitTokens(t.prefixes, {}), 0);
      await t.cache.flush();
    }
    await using t = await open([fs]);
    for (const [seed, salt] of SALTS.entries()) {
      using expected = new EngineTensors(new HostDevice(), LAYOUT, 16);
      assertEquals(await foundBytes(t.prefixes, { salt }), expected.expected(seed)[0], salt);
    }
    t.cache.quota.set("alice@example.com", { l2Bytes: 1 });
    assertEquals(t.cache.quota.list(), [{ salt: "alice@example.com", quota: { l2Bytes: 1 } }]);
    t.cache.quota.delete("alice@example.com");
    // One whose encoding is another one's name, and one too long for a file name.
    const gone = ["alice@example.com", "語".repeat(128)];
    for (const salt of gone) {
      const [removed] = (await t.cache.forget({ salt })).adapters;
      assertEquals([removed?.objects, removed?.complete], [4, true], salt);
    }
    t.cache.clearL1();
    for (const salt of SALTS) {
      const expected = gone.includes(salt) ? 0 : 16;
      assertEquals(await hitTokens(t.prefixes, { salt }), expected, salt);
    }
  });
}

const LOST: Record<string, (prefixes: PrefixCache, options: PromptOptions) => unknown> = {
  match: (prefixes, options) => prefixes.match(TOKENS, options),
  warm: (prefixes, options) => prefixes.warm(TOKENS, options),
  // deno-lint-ignore require-await -- a rejection, as of the others
  put: async (prefixes, options) => put(prefixes, options),
  // deno-lint-ignore require-await -- a rejection, as of the others
  keys: async (prefixes, options) => prefixes.keys(TOKENS, options),
};
for (const [name, call] of Object.entries(LOST)) {
  Deno.test(`${name}() rejects an undefined salt or extra key`, async () => {
    await using t = await open();
    put(t.prefixes, {});
    for (const key of ["salt", "extraKey"]) {
      for (const lost of [undefined, null]) {
        await assertRejects(
          async () => await call(t.prefixes, { [key]: lost } as PromptOptions),
          TypeError,
          lost === null ? `${key} must be` : `must have a value for ${key}, or not have the key`,
        );
      }
    }
    await call(t.prefixes, {});
  });
}

Deno.test("PrefixCache rejects an undefined revision or rank", async () => {
  await using t = await open();
  const make = (options: object) => () =>
    new PrefixCache(t.cache, { ...OPTIONS, ...options } as PrefixCacheOptions);
  assertThrows(
    make({ model: { name: "m", revision: undefined } }),
    TypeError,
    "value for revision",
  );
  assertThrows(make({ model: { name: "m", revision: null } }), TypeError, "value for revision");
  assertThrows(make({ kvRank: undefined }), TypeError, "value for kvRank");
});

Deno.test("an image affects the chunks from its own on, and none before", async () => {
  await using t = await open();
  const image = (atToken: number, key = "image 1") => ({ extraKey: [{ atToken, key }] });
  put(t.prefixes, image(9));
  const found = async (options: PromptOptions) => await hitTokens(t.prefixes, options);
  assertEquals(await found(image(9)), 16);
  assertEquals(await found(image(9, "image 2")), 8, "the system prompt is shared");
  assertEquals(await found({}), 8);
  assertEquals(await found(image(12)), 8);
  assertEquals(await found(image(3)), 0);
  assertEquals(await found({ extraKey: "image 1" }), 0);
  assertEquals(await found({ ...image(9), salt: "alice" }), 0);
  assertEquals(await found({ extraKey: [...image(9).extraKey, ...image(16).extraKey] }), 16);
});

Deno.test("two prompts share exactly the chunks before the first that has another key", async () => {
  await using t = await open();
  const key = fc.record({ atToken: fc.nat(20), key: fc.constantFrom("a", "b") });
  const anyKeys = fc.uniqueArray(key, { maxLength: 3, selector: ({ atToken }) => atToken });
  let run = 0;
  await fc.assert(
    fc.asyncProperty(anyKeys, anyKeys, async (stored, asked) => {
      const salt = `run ${run++}`;
      put(t.prefixes, { salt, extraKey: stored });
      const chunks = [0, 1, 2, 3].map((chunk) =>
        [stored, asked].map((keys) =>
          keys.filter(({ atToken }) => Math.floor(atToken / 4) === chunk)
            .map(({ atToken, key }) => `${atToken} ${key}`).sort().join()
        )
      );
      const different = chunks.findIndex(([a, b]) => a !== b);
      const expected = different < 0 ? 16 : 4 * different;
      assertEquals(await hitTokens(t.prefixes, { salt, extraKey: asked }), expected);
    }),
    runs(200),
  );
});
