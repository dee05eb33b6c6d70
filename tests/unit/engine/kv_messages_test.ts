import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  type GroupedKv,
  type MatchOptions,
  PrefixCache,
  type PrefixCacheOptions,
  type PutOptions,
} from "../../../src/engine/mod.ts";
import { kvLayout } from "../../../src/keys/kv_layout.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import { TieredCache } from "../../../src/tiered_cache.ts";

const LAYOUT = kvLayout({ layers: 2, kvHeads: 1, headDim: 4, dtype: "f32", chunkTokens: 4 });
const OPTIONS: PrefixCacheOptions = { model: { name: "m" }, layout: LAYOUT };
const TOKENS = Array.from({ length: 9 }, (_, i) => i);

async function open(
  options: PrefixCacheOptions = OPTIONS,
): Promise<{ cache: TieredCache; prefixes: PrefixCache } & AsyncDisposable> {
  const cache = await TieredCache.open({ device: new HostDevice() });
  return {
    cache,
    prefixes: new PrefixCache(cache, options),
    [Symbol.asyncDispose]: () => cache[Symbol.asyncDispose](),
  };
}

const bytes = () => new Uint8Array(128);
const layer = () => ({ key: bytes(), value: bytes() });
const layers = () => [layer(), layer()];
const blocks = (more: object) => ({ layers: layers(), blockTokens: 8, ...more });
const TENSOR = "must be a GPUBuffer, a Uint8Array, or { buffer, byteOffset, byteLength }: received";

const WRONG_KV: Record<string, [unknown, typeof Error, string]> = {
  "nothing": [undefined, TypeError, "KV must be an array of layers, { key, value } each"],
  "a buffer": [bytes(), TypeError, "blockTokens, … }: received a Uint8Array"],
  "one layer alone": [layer(), TypeError, "received an object with key, value"],
  "layers of { k, v }": [
    [{ k: bytes(), v: bytes() }, { k: bytes(), v: bytes() }],
    TypeError,
    "Layer 0 of KV must be { key, value }: received an object with k, v",
  ],
  "a layer that is missing": [[layer(), null], TypeError, "Layer 1 of KV must be { key, value }"],
  "Float32Array tensors": [
    [layer(), { key: new Float32Array(32), value: new Float32Array(32) }],
    TypeError,
    `key of layer 1 ${TENSOR} a Float32Array, give its bytes as new Uint8Array(it.buffer`,
  ],
  "ArrayBuffer tensors": [
    [layer(), { key: bytes(), value: new ArrayBuffer(128) }],
    TypeError,
    `value of layer 1 ${TENSOR} an ArrayBuffer`,
  ],
  "a tensor that is lost": [
    [{ key: undefined, value: bytes() }, layer()],
    TypeError,
    `key of layer 0 ${TENSOR} undefined`,
  ],
  "a range without its buffer": [
    [{ key: { buffer: undefined, byteOffset: 0, byteLength: 128 }, value: bytes() }, layer()],
    TypeError,
    "buffer of key of layer 0 must be a GPUBuffer or a Uint8Array: received undefined",
  ],
  "a range without its offset": [
    [{ key: { buffer: bytes(), offset: 0, byteLength: 128 }, value: bytes() }, layer()],
    TypeError,
    "byteOffset of key of layer 0 must be a multiple of 4 from 0 to 128: received undefined",
  ],
  "a range beyond its buffer": [
    [{ key: { buffer: bytes(), byteOffset: 4, byteLength: 128 }, value: bytes() }, layer()],
    RangeError,
    "byteLength of key of layer 0 must be an integer from 0 to 124: received 128",
  ],
  "a range between words": [
    [{ key: { buffer: bytes(), byteOffset: 2, byteLength: 126 }, value: bytes() }, layer()],
    RangeError,
    "a multiple of 4 from 0 to 128: received 2",
  ],
  "too few layers": [[layer()], RangeError, "the 2 layers of the layout: received 1"],
  "blocks without layers": [
    { layers: undefined, blockTokens: 8 },
    TypeError,
    "layers must be an array of { key, value }: received undefined",
  ],
  "blocks with a mistyped key": [
    blocks({ blocktable: [0] }),
    TypeError,
    "did you mean blockTable?",
  ],
  "blocks whose table is lost": [
    blocks({ blockTable: undefined }),
    TypeError,
    "KV blocks must have a value for blockTable, or not have the key: received undefined",
  ],
  "a block table that is a number": [
    blocks({ blockTable: 3 }),
    TypeError,
    "blockTable must be an array of integers: received a number",
  ],
  "a block that is text": [
    blocks({ blockTable: ["0"] }),
    RangeError,
    "received a string at index 0",
  ],
  "block tokens as text": [
    blocks({ blockTokens: "8" }),
    TypeError,
    "blockTokens must be an integer of at least 1: received a string",
  ],
  "a stride as text": [
    blocks({ blockStrideBytes: "128" }),
    TypeError,
    "blockStrideBytes must be a multiple of 4 of at least 128: received a string",
  ],
};
for (const [what, [kv, type, message]] of Object.entries(WRONG_KV)) {
  Deno.test(`put() and scatterTo() say what is wrong with ${what}`, async () => {
    await using t = await open();
    assertThrows(() => t.prefixes.put(TOKENS, kv as GroupedKv), type, message);
    const { l1, store } = t.cache.reportStatus();
    assertEquals([l1.totalObjectCount, store.pendingObjects], [0, 0]);
    t.prefixes.put(TOKENS, layers());
    using hit = await t.prefixes.match(TOKENS);
    assertEquals(hit.tokens, 8);
    assertThrows(() => hit.scatterTo(kv as GroupedKv), type, message);
  });
}

Deno.test("KV of groups and of layers are distinguished", async () => {
  const groups = [{ layout: LAYOUT }, { layout: LAYOUT, windowTokens: 4 }];
  await using t = await open({ ...OPTIONS, layout: groups });
  const put = (kv: unknown) => () => t.prefixes.put(TOKENS, kv as GroupedKv);
  assertEquals(put([layers(), blocks({})])().storedTokens, 8);
  assertThrows(
    put(layers()),
    RangeError,
    "KV must be given for 2 groups: received 1, pass an array with the KV of each",
  );
  assertThrows(put([layers()]), RangeError, "KV must be given for 2 groups: received 1");
  assertThrows(put([layers(), layers(), layers()]), RangeError, "for 2 groups: received 3");
  assertThrows(put([layers(), null]), TypeError, "blockTokens, … }: received null");
  using hit = await t.prefixes.match(TOKENS);
  for (const group of [2, -1, 0.5, NaN]) {
    assertThrows(() => hit.ranges(group), RangeError, `group must be an integer from 0 to 1`);
  }
  await using one = await open();
  assertEquals(one.prefixes.put(TOKENS, [layers()]).storedTokens, 8, "a list of one group");
});

const WRONG_OPTIONS: Record<string, [object, typeof Error, string]> = {
  "an unknown key": [
    { cacheSalt: "a" },
    TypeError,
    'must not have the key "cacheSalt": did you mean salt?',
  ],
  "a salt of another type": [{ salt: 7 }, TypeError, "salt must be a string: received a number"],
  "an extra key of another type": [
    { extraKey: { atToken: 0, key: "a" } },
    TypeError,
    "extraKey must be a string or an array of { atToken, key }: received an object with atToken, key",
  ],
};
const WRONG_LIMITS: Record<string, [object, typeof Error, string]> = {
  "a deadline as text": [
    { deadlineMs: "200" },
    TypeError,
    "deadlineMs must be a number of at least 0: received a string",
  ],
  "a deadline in the past": [{ deadlineMs: -1 }, RangeError, "received -1"],
  "a controller for its signal": [
    { signal: new AbortController() },
    TypeError,
    "signal must be an AbortSignal: received an AbortController",
  ],
};
for (
  const [what, [options, type, message]] of Object.entries({ ...WRONG_OPTIONS, ...WRONG_LIMITS })
) {
  Deno.test(`match() and warm() say what is wrong with ${what}`, async () => {
    await using t = await open();
    await assertRejects(() => t.prefixes.match(TOKENS, options as MatchOptions), type, message);
    await assertRejects(() => t.prefixes.warm(TOKENS, options as MatchOptions), type, message);
  });
}
const WRONG_PUT = {
  ...WRONG_OPTIONS,
  "computed tokens as text": [{ computedTokens: "8" }, TypeError, "received a string"],
  "computed tokens beyond its tokens": [
    { computedTokens: 10 },
    RangeError,
    "at most 9, the tokens given: received 10",
  ],
  "a deadline": [{ deadlineMs: 5 }, TypeError, 'put() options must not have the key "deadlineMs"'],
} satisfies Record<string, [object, typeof Error, string]>;
for (const [what, [options, type, message]] of Object.entries(WRONG_PUT)) {
  Deno.test(`put() says what is wrong with ${what}`, async () => {
    await using t = await open();
    assertThrows(() => t.prefixes.put(TOKENS, layers(), options as PutOptions), type, message);
  });
}

Deno.test("calls describe missing tokens", async () => {
  await using t = await open();
  const received = "Tokens must be an array of token ids: received";
  for (
    const [tokens, words] of [[undefined, "undefined"], [
      { data: [1] },
      "an object with data",
    ]] as const
  ) {
    const wrong = tokens as unknown as number[];
    await assertRejects(() => t.prefixes.match(wrong), TypeError, `${received} ${words}`);
    assertThrows(() => t.prefixes.put(wrong, layers()), TypeError, `${received} ${words}`);
    assertThrows(() => t.prefixes.keys(wrong), TypeError, `${received} ${words}`);
  }
});

const WRONG_CACHE: Record<string, [object | null, typeof Error, string]> = {
  "no options": [null, TypeError, "PrefixCache options must be an object: received null"],
  "an unknown key": [{ ...OPTIONS, kvrank: 1 }, TypeError, "did you mean kvRank?"],
  "a rank as text": [
    { ...OPTIONS, kvRank: "1" },
    TypeError,
    "kvRank must be an integer from 0 to 4294967295: received a string",
  ],
  "no model": [
    { layout: LAYOUT },
    TypeError,
    "model must be { name, revision? }: received undefined",
  ],
  "a name that is a number": [
    { ...OPTIONS, model: { name: 3 } },
    TypeError,
    "model.name must be a string: received a number",
  ],
  "an unknown key of the model": [
    { ...OPTIONS, model: { name: "m", rev: "1" } },
    TypeError,
    'model must not have the key "rev"',
  ],
  "a deadline as text": [
    { ...OPTIONS, deadline: { baseMs: "5" } },
    TypeError,
    "deadline.baseMs must be a number of at least 0: received a string",
  ],
  "an unknown key of the deadline": [
    { ...OPTIONS, deadline: { base: 5 } },
    TypeError,
    "did you mean baseMs?",
  ],
  "no layout": [
    { model: { name: "m" } },
    TypeError,
    "layout must be made by kvLayout(), or an array of groups: received undefined",
  ],
  "a shape for its layout": [
    { ...OPTIONS, layout: { layers: 2 } },
    TypeError,
    "kvLayout(), or an array of groups: received an object with layers",
  ],
  "layouts for groups": [
    { ...OPTIONS, layout: [LAYOUT, LAYOUT] },
    TypeError,
    "layout[0] must be { layout, windowTokens? }: received a layout",
  ],
  "a group that is null": [
    { ...OPTIONS, layout: [null] },
    TypeError,
    "layout[0] must be an object: received null",
  ],
  "no groups": [
    { ...OPTIONS, layout: [] },
    RangeError,
    "layout must have at least one group: received none",
  ],
  "a mistyped window": [
    { ...OPTIONS, layout: [{ layout: LAYOUT, window: 4 }] },
    TypeError,
    "did you mean windowTokens?",
  ],
  "a window as text": [
    { ...OPTIONS, layout: [{ layout: LAYOUT, windowTokens: "4" }] },
    TypeError,
    "layout[0].windowTokens must be a number of at least 1: received a string",
  ],
};
for (const [what, [options, type, message]] of Object.entries(WRONG_CACHE)) {
  Deno.test(`PrefixCache says what is wrong with ${what}`, async () => {
    await using t = await open();
    assertThrows(() => new PrefixCache(t.cache, options as PrefixCacheOptions), type, message);
  });
}

Deno.test("PrefixCache describes a missing cache", () => {
  const none = undefined as unknown as TieredCache;
  assertThrows(
    () => new PrefixCache(none, OPTIONS),
    TypeError,
    "cache must be a TieredCache: received undefined",
  );
});
