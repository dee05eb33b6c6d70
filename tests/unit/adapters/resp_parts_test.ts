import { Buffer } from "node:buffer";
import { assert, assertEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import {
  decodeEmbeddedKey,
  decodeManifest,
  embeddedKeyOf,
  encodeManifest,
} from "../../../adapters/_resp/object_head.ts";
import { followSignal } from "../../../adapters/_resp/follow_signal.ts";
import { RespObjectNames } from "../../../adapters/_resp/object_names.ts";
import { parseServerUrl } from "../../../adapters/_resp/server_url.ts";
import { anyObjectKey } from "../../support/any_key.ts";

const nothing = { byteLength: 0, copyTo: () => {} };

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
