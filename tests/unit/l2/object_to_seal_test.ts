import { assertEquals, assertNotEquals } from "@std/assert";
import { ObjectWithTrailer } from "../../../src/l2/object_to_seal.ts";
import { bytesWithTrailer, tailBytes, verifyObject } from "../../../src/adapter/object_trailer.ts";
import { testBytes, testKey, testLayout } from "../../support/objects.ts";

Deno.test("the trailer is written when the parts are first read, and not before", () => {
  const key = testKey(1);
  const layout = testLayout(100);
  const pieces = [testBytes(key, 100), new Uint8Array(tailBytes(key))];
  const object = new ObjectWithTrailer(key, layout, pieces);
  assertEquals(object.byteLength, bytesWithTrailer(key, layout));
  assertNotEquals(verifyObject(key, layout, pieces), null);
  assertEquals(verifyObject(key, layout, object.parts), null);
});

Deno.test("the trailer is written once: later changes of the payload are detected", () => {
  const key = testKey(2);
  const layout = testLayout(100);
  const payload = testBytes(key, 100);
  const object = new ObjectWithTrailer(key, layout, [payload, new Uint8Array(tailBytes(key))]);
  assertEquals(verifyObject(key, layout, object.parts), null);
  payload[50] = (payload[50] ?? 0) ^ 1;
  assertEquals(verifyObject(key, layout, object.parts), "payload-checksum");
});
