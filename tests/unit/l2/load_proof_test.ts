import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { verifyObject } from "../../../src/adapter/object_trailer.ts";
import { Bitmap } from "../../../src/adapter/contract.ts";
import type { SharedBytes } from "../../../src/base/io/io_batch.ts";
import { IoWorkers } from "../../../src/base/io/io_workers.ts";
import { LoadProof } from "../../../src/base/io/load_proof.ts";
import { sealedObject } from "../../support/sealed_objects.ts";
import { testKey, testLayout } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { empty, guardOf, keys, sealed } from "./guarded.ts";

const key = testKey(1);
const layout = testLayout(1_000);

/** A proof for an object that a thread has read. */
async function provenObject(): Promise<{ parts: SharedBytes[]; proof: unknown }> {
  await using directory = await tempDirectory();
  await using stack = new AsyncDisposableStack();
  const { parts: [payload, tail], byteLength } = sealedObject(key, layout);
  const path = join(directory.path, "object");
  await Deno.writeFile(path, new Uint8Array([...payload ?? [], ...tail ?? []]));
  const workers = stack.adopt(new IoWorkers({ count: 1 }), (workers) => workers.close());
  const timer = setInterval(() => {}, 1_000);
  await workers.start();
  clearInterval(timer);
  const parts = [new Uint8Array(new SharedArrayBuffer(byteLength))];
  const results = await workers.run({
    kind: "load",
    isDirect: false,
    readAheadBytes: 0,
    tasks: [{
      path,
      parts,
      trailingBytes: [0],
      allowShorter: false,
      checksumBytes: layout.byteLength,
    }],
  });
  return { parts, proof: results.proofOf(0) };
}

Deno.test("a proof replaces the checksum of a payload once, and only of its own bytes", async () => {
  const { parts, proof } = await provenObject();
  const [bytes = new Uint8Array()] = parts;
  bytes[5] = (bytes[5] ?? 0) ^ 1;
  assertEquals(verifyObject(key, layout, parts, proof), null, "the payload is not read again");
  assertEquals(verifyObject(key, layout, parts, proof), "payload-checksum", "used before");
  const other = await provenObject();
  assertEquals(verifyObject(key, layout, parts, other.proof), "payload-checksum");
});

Deno.test("a proof is no reason to accept another object", async () => {
  const { parts, proof } = await provenObject();
  assertEquals(verifyObject(testKey(2), layout, parts, proof), "key");
});

Deno.test("guard: an adapter cannot vouch for damaged bytes", async () => {
  const { proof: real } = await provenObject();
  const forged: readonly unknown[] = [
    true,
    { checksum: 0 },
    Object.create(LoadProof.prototype),
    new Proxy(Object(real), {}),
    real,
  ];
  for (const proof of forged) {
    const { guard } = guardOf({
      load(batch, { onLoaded }) {
        for (const [i, { parts: [payload, tail] }] of batch.entries()) {
          const [whole = new Uint8Array(), end = new Uint8Array()] = sealed[i]?.parts ?? [];
          payload?.set(whole);
          tail?.set(end);
          payload?.fill(7, 0, 5);
          onLoaded?.(i, undefined, proof);
        }
        return Promise.resolve(new Bitmap(batch.length, batch.length));
      },
    });
    assertEquals((await guard.load(empty())).done.popcount(), 0);
    assertEquals(guard.reportStatus().damagedObjects, { "payload-checksum": keys.length });
  }
});
