import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  decodeEmbeddedKey,
  decodeManifest,
  embeddedKeyOf,
  encodeManifest,
} from "../../../adapters/_resp/object_head.ts";
import { followSignal } from "../../../adapters/_resp/follow_signal.ts";
import { RespObjectNames } from "../../../adapters/_resp/object_names.ts";
import { ObjectParts } from "../../../adapters/_shared/object_parts.ts";
import { parseServerUrl } from "../../../adapters/_resp/server_url.ts";
import { anyObjectKey } from "../../support/any_key.ts";

/** Bytes in parts of any size, including empty ones. */
const anyParts = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 8 }).map((parts) =>
  parts.map((part) => new Uint8Array([9, ...part, 9]).subarray(1, part.length + 1))
);
const nothing = { byteLength: 0, copyTo: () => {} };

Deno.test("slices of parts equal slices of the whole", () => {
  fc.assert(
    fc.property(anyParts, fc.nat(200), fc.nat(200), (parts, a, b) => {
      const whole = Buffer.concat(parts);
      const [start = 0, end = 0] = [a, b].map((n) => n % (whole.length + 1)).sort((x, y) => x - y);
      assertEquals(
        Buffer.from(new ObjectParts(parts).slice(start, end)),
        Buffer.from(whole.subarray(start, end)),
      );
    }),
    { seed: 1 },
  );
});

Deno.test("bytes within one part are not copied", () => {
  const parts = [new Uint8Array(10), new Uint8Array(100)];
  const slice = new ObjectParts(parts).slice(20, 110);
  assert(slice.buffer === parts[1]?.buffer);
  assertEquals(slice.byteOffset, 10);
});

Deno.test("chunks written to parts in any order give the whole", () => {
  fc.assert(
    fc.property(anyParts, fc.integer({ min: 1, max: 50 }), (parts, size) => {
      const whole = Buffer.concat(parts);
      const room = parts.map(({ byteLength }) => new Uint8Array(byteLength));
      const target = new ObjectParts(room);
      for (let at = Math.floor(whole.length / size) * size; at >= 0; at -= size) {
        target.fill(whole.subarray(at, at + size), at);
      }
      assertEquals(Buffer.concat(room), whole);
    }),
    { seed: 2 },
  );
});

Deno.test("a manifest round-trips, with the key if the name does not spell it", () => {
  const names = new RespObjectNames("p:");
  fc.assert(
    fc.property(anyObjectKey, fc.nat(), fc.nat(2 ** 31), (key, count, byteLength) => {
      const head = names.manifestKeyOf(key);
      const name = names.nameIn(head);
      assert(name !== undefined);
      const embedded = embeddedKeyOf(name, key);
      const fields = { chunkCount: count, chunkBytes: 7, byteLength, generation: "0f".repeat(16) };
      const value = encodeManifest(fields, embedded, nothing);
      const decoded = decodeManifest(value);
      assert(decoded !== undefined);
      assertEquals(decoded, { ...fields, keyLength: embedded?.byteLength ?? 0 });
      const found = names.keyOf(name, embedded && decodeEmbeddedKey(value, decoded));
      assertEquals(found?.id, key.id);
    }),
    { seed: 3 },
  );
});

Deno.test("invalid values are no manifests", () => {
  for (const text of ["", "KVR1", "KVR2" + "0".repeat(68), "KVR1" + "g".repeat(68)]) {
    assertEquals(decodeManifest(Buffer.from(text)), undefined);
  }
});

Deno.test("a prefix with pattern characters matches only itself", () => {
  assertEquals(new RespObjectNames("a*[b]?\\:").manifestPattern, "a\\*\\[b\\]\\?\\\\:{*}");
});

Deno.test("URLs contain servers and credentials", () => {
  assertEquals(parseServerUrl("redis://h"), {
    servers: [{ host: "h", port: 6379 }],
    isEncrypted: false,
    username: undefined,
    password: undefined,
    database: undefined,
  });
  assertEquals(parseServerUrl("rediss://u:p%40@[::1]:7000/3"), {
    servers: [{ host: "::1", port: 7000 }],
    isEncrypted: true,
    username: "u",
    password: "p@",
    database: 3,
  });
  assertEquals(parseServerUrl("valkey://:p@a:1, valkey://:p@b:2/")?.servers, [
    { host: "a", port: 1 },
    { host: "b", port: 2 },
  ]);
});

Deno.test("invalid URLs are refused", () => {
  for (
    const url of [
      "",
      "h",
      "http://h",
      "redis://",
      "redis://h/x",
      "redis://h,http://b",
      "redis://h?db=3",
      "redis://h#3",
      "redis://a,redis://u:p@b",
      "redis://u:p@a,redis://u:q@b",
      "redis://a/1,redis://b/2",
      "redis://%zz@h",
    ]
  ) {
    assertEquals(parseServerUrl(url), undefined, url);
  }
});

Deno.test("a signal follows another one until it is disposed", () => {
  const controller = new AbortController();
  using one = followSignal(controller.signal);
  using two = followSignal(controller.signal);
  const ended = followSignal(controller.signal);
  ended[Symbol.dispose]();
  controller.abort("why");
  using late = followSignal(controller.signal);
  assertEquals([one, two, late].map(({ signal }) => signal.reason), ["why", "why", "why"]);
  assert(!ended.signal.aborted);
});
