import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { Bucket, bucketAt } from "../../../adapters/_s3/bucket_url.ts";
import { S3ObjectNames } from "../../../adapters/_s3/object_names.ts";
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
    ["s3://MyBucket", undefined, undefined, `https://${aws}/MyBucket`],
    ["s3://123456", undefined, undefined, `https://123456.${aws}`],
    [`https://123456.${aws}`, undefined, undefined, `https://123456.${aws}`],
    [`https://${aws}`, "my.kv.bucket", undefined, `https://${aws}/my.kv.bucket`],
    [`https://${aws}`, "MyBucket", true, `https://${aws}/MyBucket`],
    [`https://kv-bucket.${aws}`, "kv-bucket", undefined, `https://kv-bucket.${aws}`],
    ["http://minio.local", "my.kv.bucket", false, "http://my.kv.bucket.minio.local"],
    ["https://kv-bucket.minio.local", undefined, false, "https://kv-bucket.minio.local"],
    ["s3://kv-bucket.minio.local", undefined, false, "https://kv-bucket.minio.local"],
    [
      "https://vpce-1-2.s3.us-east-1.vpce.amazonaws.com",
      "kv-bucket",
      true,
      [
        "https://vpce-1-2.s3.us-east-1.vpce.amazonaws.com/kv-bucket",
      ].join(""),
    ],
  ];
  for (const [endpoint, bucket, isPathStyle, location] of cases) {
    const place = { endpoint, bucket, region, isPathStyle, isPlain: false };
    const found = bucketAt(place);
    assert(found instanceof Bucket, JSON.stringify([place, found]));
    assertEquals(found.location, location, endpoint);
  }
  const plain = {
    endpoint: "minio.local",
    bucket: "kvb",
    region,
    isPathStyle: true,
    isPlain: true,
  };
  const found = bucketAt(plain);
  assert(found instanceof Bucket && !found.isEncrypted);
  assertEquals(found.location, "http://minio.local/kvb");
});

Deno.test("an endpoint without a clear bucket is refused with the correction", () => {
  const aws = "s3.eu-west-1.amazonaws.com";
  type Case = readonly [string, string | undefined, boolean | undefined, string, string];
  const cases: readonly Case[] = [
    [`https://${aws}`, undefined, undefined, "s3_endpoint", `https://${aws}/BUCKET`],
    [aws, undefined, false, "s3_endpoint", "the key bucket"],
    ["https://s3.amazonaws.com", undefined, undefined, "s3_endpoint", "the key bucket"],
    ["https://minio.example.com", undefined, undefined, "s3_endpoint", "s3_use_path_style: false"],
    ["s3://my-bucket/pre/fix", undefined, undefined, "s3_endpoint", 'key_prefix: "pre/fix/"'],
    ["http://h/my-bucket/pre/fix", undefined, undefined, "s3_endpoint", 'key_prefix: "pre/fix/"'],
    ["s3://kv.example.com", undefined, undefined, "s3_endpoint", 'bucket: "kv.example.com"'],
    [`https://MyBucket.${aws}`, undefined, undefined, "s3_endpoint", "lowercase"],
    ["s3://my_bucket", undefined, false, "s3_use_path_style", "true"],
    ["s3://ab", undefined, undefined, "s3_endpoint", "3 to 63"],
    ["s3://kv-bucket", "another", undefined, "s3_endpoint", "named once"],
    [`https://kv-bucket.${aws}`, "another", undefined, "s3_endpoint", "named once"],
    ["http://h/kv-bucket", "another", undefined, "s3_endpoint", "named once"],
    [`https://${aws}`, "my.kv.bucket", false, "s3_use_path_style", "true"],
    [`https://${aws}`, "MyBucket", false, "s3_use_path_style", "true"],
    ["http://10.0.0.1:9000", "kv-bucket", false, "s3_use_path_style", "address"],
    ["http://[::1]:9000/kv-bucket", undefined, false, "s3_use_path_style", "address"],
    ["http://10.0.0.1:9000", undefined, false, "s3_endpoint", "the key bucket"],
    ["https://user:secret@host/kv-bucket", undefined, undefined, "s3_endpoint", "HOST"],
    ["https://host/kv-bucket?secret", undefined, undefined, "s3_endpoint", "HOST"],
  ];
  for (const [endpoint, bucket, isPathStyle, key, words] of cases) {
    const place = { endpoint, bucket, region: "eu-west-1", isPathStyle, isPlain: false };
    const problem = bucketAt(place);
    assert(!(problem instanceof Bucket), `${endpoint}: ${JSON.stringify(problem)}`);
    assertEquals(problem.key, key, endpoint);
    assertStringIncludes(problem.expected, words);
    assert(!JSON.stringify(problem).includes("secret"), endpoint);
  }
});

Deno.test("names are distinct, and spell or carry their keys", () => {
  const names = new S3ObjectNames("a/b/");
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
      // The URL decodes to the name, and no segment is taken for a relative one.
      const { pathname } = bucket.urlOf(name, {});
      assertEquals(decodeURIComponent(pathname), `/bucket/${name}`);
    }),
    runs(200),
  );
});

Deno.test("strings survive escaping in XML", () => {
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

Deno.test("a listing reads all pages, and finds objects with long names", async () => {
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
