import { assert, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { Bucket, bucketAt } from "../../../adapters/_s3/bucket_url.ts";
import { ObjectNames } from "../../../adapters/_s3/object_names.ts";
import { elementsIn, escapeXml, tagIn } from "../../../adapters/_s3/xml.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { anyObjectKey } from "../../support/any_key.ts";
import { runs } from "../../support/runs.ts";
import { call, openS3Lab, storeBits } from "../../support/s3_adapter.ts";

Deno.test("an endpoint names a bucket", () => {
  const region = "eu-west-1";
  const aws = "s3.eu-west-1.amazonaws.com";
  const cases: readonly (readonly [string, string | undefined, boolean | undefined, string])[] = [
    ["s3://kv-bucket", undefined, undefined, `https://kv-bucket.${aws}`],
    ["s3://kv-bucket", undefined, true, `https://${aws}/kv-bucket`],
    [`s3://kv-bucket.${aws}`, undefined, undefined, `https://kv-bucket.${aws}`],
    [`kv-bucket.${aws}`, undefined, undefined, `https://kv-bucket.${aws}`],
    [`https://${aws}`, "kv-bucket", undefined, `https://kv-bucket.${aws}`],
    [`https://${aws}`, "kv-bucket", true, `https://${aws}/kv-bucket`],
    ["s3://localhost:8080/kv-bucket", undefined, undefined, "https://localhost:8080/kv-bucket"],
    ["http://10.0.0.1:9000", "kv-bucket", undefined, "http://10.0.0.1:9000/kv-bucket"],
    ["http://minio.local:9000/", "kv-bucket", false, "http://kv-bucket.minio.local:9000"],
    ["http://[::1]:9000/kv-bucket", undefined, undefined, "http://[::1]:9000/kv-bucket"],
    ["minio.local", "kv-bucket", undefined, "https://minio.local/kv-bucket"],
  ];
  for (const [endpoint, bucket, isPathStyle, location] of cases) {
    const place = { endpoint, bucket, region, isPathStyle, isPlain: false };
    assertEquals(bucketAt(place)?.location, location, endpoint);
  }
  const plain = { endpoint: "minio.local", bucket: "kv", region, isPathStyle: true, isPlain: true };
  assertEquals(bucketAt(plain)?.location, "http://minio.local/kv");
  assert(!bucketAt(plain)?.isEncrypted);
});

Deno.test("names are told apart, and spell or carry their keys", () => {
  const names = new ObjectNames("a/b/");
  const bucket = new Bucket("https://host", "/bucket");
  const prefixed = (key: ObjectKey): boolean =>
    names.prefixesOf(key.model).some((prefix) => names.nameOf(key).startsWith(prefix));
  fc.assert(
    fc.property(anyObjectKey, anyObjectKey, (key, other) => {
      const name = names.nameOf(key);
      assertEquals(name === names.nameOf(other), key.id === other.id);
      const header = names.headersOf(key)["x-amz-meta-kvtier-key"] ?? null;
      assertEquals(names.isHashed(name), header !== null);
      const told = header === null ? names.keyIn(name) : names.keyInHeader(name, header);
      assertEquals(told?.id, key.id);
      if (key.id !== other.id) assertEquals(names.keyInHeader(names.nameOf(other), header), null);
      assert(prefixed(key));
      // The address gives the name back, and no segment is taken for a step.
      const { pathname } = bucket.urlOf(name, {});
      assertEquals(decodeURIComponent(pathname), `/bucket/${name}`);
    }),
    runs(200),
  );
});

Deno.test("texts come through XML as they were", () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      const document = `<A><Key>${escapeXml(text)}</Key><Key x="1">b</Key></A>`;
      assertEquals(tagIn(document, "Key"), text);
      assertEquals(elementsIn(document, "Key").length, 2);
    }),
    runs(200),
  );
  assertEquals(tagIn("<T>&#x3D;&#61;&quot;&unknown;</T>", "T"), '=="&unknown;');
  assertEquals(tagIn("<Key>", "Key"), undefined);
});

Deno.test("a listing goes on over its pages, and finds what has a long name", async () => {
  await using lab = await openS3Lab();
  const { server, adapter } = lab;
  server.pageSize = 3;
  const keys = fc.sample(anyObjectKey, { numRuns: 20, seed: 5 });
  const ids = [...new Set(keys.map(({ id }) => id))].sort();
  await storeBits(lab, keys, 100);
  server.objects.set("kvtier/not-ours", { bytes: new Uint8Array(3), headers: {} });
  const listed = await Array.fromAsync(adapter.list?.(call()) ?? []);
  assertEquals(listed.map(({ key }) => key.id).sort(), ids);
  for (const { byteLength, usedAt = 0 } of listed) {
    assertEquals(byteLength, 100);
    assert(Math.abs(Date.now() - usedAt) < 60_000);
  }
  for (const { model } of keys) {
    const ofModel = await Array.fromAsync(adapter.list?.({ ...call(), model }) ?? []);
    const wanted = new Set(keys.filter((key) => key.model === model).map(({ id }) => id));
    assertEquals(new Set(ofModel.map(({ key }) => key.id)), wanted);
  }
});
