import { assert, assertEquals, assertNotEquals } from "@std/assert";
import * as fc from "../../../support/fast_check.ts";
import { zstdCompressSync } from "node:zlib";
import { ObjectKey } from "../../../../src/keys/object_key.ts";
import { type AdapterObject, concatParts } from "../../../../src/adapter/contract.ts";
import { tailBytes, writeTrailer } from "../../../../src/adapter/object_trailer.ts";
import {
  encodeFrameHeader,
  FRAME_HEADER_BYTES,
} from "../../../../src/l2/transforms/frame_header.ts";
import { TransformChain } from "../../../../src/l2/transforms/transform_chain.ts";
import { anyObjectKey } from "../../../support/any_key.ts";
import { assertSameBytes } from "../../../support/bytes.ts";
import { testKey, testLayout } from "../../../support/objects.ts";
import { runs } from "../../../support/runs.ts";
import { sealedObject } from "../../../support/sealed_objects.ts";
import { aesTransform, chainMakers, encoded, roomWith, zstdTransform } from "./chains.ts";

const key = testKey(1, { cacheSalt: "tenant" });
const small = sealedObject(key, testLayout(16));

/**
 * Replaces the bytes between header and trailer, as an attacker with knowledge of the format would.
 */
function forged(
  chain: TransformChain,
  to: ObjectKey,
  body: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  const headerBytes = chain.isFixed ? 0 : FRAME_HEADER_BYTES;
  const byteLength = headerBytes + body.byteLength;
  const tail = new Uint8Array(tailBytes(to));
  const header = chain.isFixed ? [] : [encodeFrameHeader(byteLength + tail.byteLength)];
  const pieces = [...header, body, tail];
  writeTrailer(to, { byteLength, fingerprint: chain.fingerprint }, pieces);
  return concatParts(pieces);
}

function bodyOf(
  chain: TransformChain,
  of: ObjectKey,
  bytes: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  return bytes.slice(chain.isFixed ? 0 : FRAME_HEADER_BYTES, bytes.byteLength - tailBytes(of));
}

for (const [name, make] of Object.entries(chainMakers)) {
  Deno.test(`${name}: objects of any size, in any parts, come back; none is longer than said`, async () => {
    using chain = await make();
    const bytes = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 5000 }),
      fc.tuple(fc.integer({ min: 1, max: 300_000 }), fc.nat(255)).map(([length, byte]) =>
        new Uint8Array(length).fill(byte)
      ),
      fc.tuple(fc.integer({ min: 1, max: 70_000 }), fc.nat(9)).map(([length, n]) =>
        crypto.getRandomValues(new Uint8Array(Math.min(length, 65_536))).fill(n, length >> 1)
      ),
    );
    const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 5 });
    await fc.assert(
      fc.asyncProperty(anyObjectKey, bytes, cuts, async (key, bytes, cuts) => {
        const ends = cuts.map((share) => Math.floor(share * bytes.byteLength)).sort((a, b) =>
          a - b
        );
        const bounds = [0, ...ends, bytes.byteLength];
        const parts = bounds.slice(1).map((end, i) => new Uint8Array(bytes).slice(bounds[i], end));
        const object: AdapterObject = { key, parts, byteLength: bytes.byteLength };
        const whole = await encoded(chain, object);
        assertSameBytes(concatParts(parts), bytes, "what was given");
        const most = object.byteLength + chain.addedBytes(key);
        if (chain.isFixed) assertEquals(whole.byteLength, most);
        else assert(whole.byteLength <= most);
        const decoded = await chain.decode(key, object.byteLength, roomWith(chain, object, whole));
        assert(decoded.fault === undefined, decoded.fault);
        assertSameBytes(decoded.bytes, bytes, "what came back");
      }),
      runs(60),
    );
  });

  Deno.test(`${name}: an object with any bit flipped is refused`, async () => {
    using chain = await make();
    const whole = await encoded(chain, small);
    for (let bit = 0; bit < 8 * whole.byteLength; bit++) {
      const bytes = whole.slice();
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const decoded = await chain.decode(key, small.byteLength, roomWith(chain, small, bytes));
      assert(decoded.fault !== undefined, `bit ${bit} of ${8 * whole.byteLength}`);
    }
  });

  Deno.test(`${name}: an object that is cut anywhere is refused`, async () => {
    using chain = await make();
    const whole = await encoded(chain, small);
    for (let end = 0; end < whole.byteLength; end++) {
      const room = roomWith(chain, small, whole.subarray(0, end));
      // The following bytes must not happen to be those cut off.
      for (let i = end; i < Math.min(room.byteLength, whole.byteLength); i++) {
        room[i] = ~(whole[i] ?? 0);
      }
      const decoded = await chain.decode(key, small.byteLength, room);
      assert(decoded.fault !== undefined, `${end} of ${whole.byteLength} bytes`);
    }
  });

  Deno.test(`${name}: an object of another length than expected is refused`, async () => {
    using chain = await make();
    const object = sealedObject(key, testLayout(1024));
    const whole = await encoded(chain, object);
    for (const byteLength of [1, object.byteLength - 1, object.byteLength + 1]) {
      const decoded = await chain.decode(key, byteLength, roomWith(chain, object, whole));
      assertEquals(decoded, { fault: "transform" });
    }
  });
}

for (const name of ["aesgcm", "zstd, aesgcm", "aesgcm, zstd"]) {
  const make = chainMakers[name] as () => Promise<TransformChain>;

  Deno.test(`${name}: with any bit of what is encrypted flipped, and a new seal, it is refused`, async () => {
    using chain = await make();
    const body = bodyOf(chain, key, await encoded(chain, small));
    const honest = forged(chain, key, body);
    const decoded = await chain.decode(key, small.byteLength, roomWith(chain, small, honest));
    assertEquals(decoded.fault, undefined, "the seal is right");
    for (let bit = 0; bit < 8 * body.byteLength; bit++) {
      const bytes = body.slice();
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const room = roomWith(chain, small, forged(chain, key, bytes));
      const decoded = await chain.decode(key, small.byteLength, room);
      assertEquals(decoded.fault, "transform", `bit ${bit} of ${8 * body.byteLength}`);
    }
  });

  Deno.test(`${name}: under another key, another salt or another master key, it is refused`, async () => {
    using chain = await make();
    const body = bodyOf(chain, key, await encoded(chain, small));
    const { model, kvRank, objectGroup, cacheSalt, chunkHash } = key;
    const fields = { model, kvRank, objectGroup, cacheSalt, chunkHash };
    const others = [
      testKey(2, { cacheSalt: "tenant" }),
      new ObjectKey({ ...fields, cacheSalt: "other" }),
      new ObjectKey({ ...fields, cacheSalt: "" }),
      new ObjectKey({ ...fields, model: "test/model2" }),
      new ObjectKey({ ...fields, kvRank: 1 }),
      new ObjectKey({ ...fields, objectGroup: 1 }),
    ];
    for (const other of others) {
      const room = roomWith(chain, { ...small, key: other }, forged(chain, other, body));
      const decoded = await chain.decode(other, small.byteLength, room);
      assertEquals(decoded, { fault: "transform" }, other.id);
      const moved = await chain.decode(other, small.byteLength, await encoded(chain, small));
      assertEquals(moved, { fault: "key" });
    }
  });
}

Deno.test("each chain has a fingerprint of its own, which a level does not change", async () => {
  using cleanup = new DisposableStack();
  const chains = [
    new TransformChain([await aesTransform(1)]),
    new TransformChain([await aesTransform(2)]),
    new TransformChain([await zstdTransform()]),
    new TransformChain([await zstdTransform(), await aesTransform(1)]),
    new TransformChain([await aesTransform(1), await zstdTransform()]),
  ].map((chain) => cleanup.use(chain));
  const prints = chains.map(({ fingerprint }) => fingerprint.toHex());
  assertEquals(new Set(prints).size, chains.length);
  using same = new TransformChain([await zstdTransform(19)]);
  assertEquals(same.fingerprint.toHex(), prints[2]);
  for (const print of prints) assertEquals(print.length, 16);
});

Deno.test("what another chain made is not damaged, but of another layout", async () => {
  const names = Object.keys(chainMakers);
  using cleanup = new DisposableStack();
  const chains: TransformChain[] = [];
  for (const name of names) chains.push(cleanup.use(await (chainMakers[name]?.() as never)));
  chains.push(cleanup.use(new TransformChain([await aesTransform(2)])));
  for (const [i, writer] of chains.entries()) {
    const whole = await encoded(writer, small);
    for (const [j, reader] of chains.entries()) {
      // An adapter returns objects that are not longer than expected, completely, and nothing else.
      const room = small.byteLength + reader.addedBytes(key);
      const isGiven = reader.isFixed ? whole.byteLength === room : whole.byteLength <= room;
      if (i === j || !isGiven) continue;
      const decoded = await reader.decode(key, small.byteLength, roomWith(reader, small, whole));
      assertEquals(decoded, { fault: "layout" }, `${i} read by ${j}`);
    }
    const plain = concatParts(small.parts);
    if (writer.isFixed) continue;
    const decoded = await writer.decode(key, small.byteLength, roomWith(writer, small, plain));
    assertEquals(decoded, { fault: "layout" }, "an object without transforms");
  }
});

Deno.test("two objects with the same bytes share no nonce", async () => {
  using chain = new TransformChain([await aesTransform()]);
  const nonces = new Set<string>();
  for (let i = 0; i < 100; i++) nonces.add((await encoded(chain, small)).slice(0, 12).toHex());
  assertEquals(nonces.size, 100);
});

Deno.test("each cache salt has an AES key of its own", async () => {
  const nonce = { bytes: (length: number) => new Uint8Array(length) };
  using chain = new TransformChain([await aesTransform(1, nonce)]);
  const streams = await Promise.all(
    [testKey(1), testKey(2), testKey(1, { cacheSalt: "a" }), testKey(1, { cacheSalt: "b" })].map(
      async (key) => {
        const object = { key, parts: [new Uint8Array(64)], byteLength: 64 };
        return (await encoded(chain, object)).slice(12, 76).toHex();
      },
    ),
  );
  assertEquals(streams[0], streams[1], "under one AES key, one nonce gives one key stream");
  assertEquals(new Set(streams).size, 3);
});

Deno.test("the bytes of an encrypted object show nothing of it", async () => {
  using chain = new TransformChain([await aesTransform()]);
  const object = { key, parts: [new Uint8Array(4096)], byteLength: 4096 };
  const body = bodyOf(chain, key, await encoded(chain, object));
  const counts = new Map<number, number>();
  for (const byte of body) counts.set(byte, (counts.get(byte) ?? 0) + 1);
  assert(Math.max(...counts.values()) < 60, "no byte is common");
});

Deno.test("a frame header with an arbitrary length does not allocate more memory", async () => {
  using chain = new TransformChain([await zstdTransform()]);
  const object = sealedObject(key, testLayout(4096));
  const whole = await encoded(chain, object);
  const claims = [0, 1, 16, 79, whole.byteLength - 1, whole.byteLength + 1, 2 ** 31, 2 ** 53 - 1];
  for (const claim of claims) {
    const bytes = whole.slice();
    bytes.set(encodeFrameHeader(claim));
    const decoded = await chain.decode(key, object.byteLength, roomWith(chain, object, bytes));
    assertNotEquals(decoded.fault, undefined, `${claim} bytes`);
  }
});

Deno.test("a decompression bomb with a right seal is refused, and takes no more room", async () => {
  using chain = new TransformChain([await zstdTransform()]);
  // A GiB of zeros, in frames of a MiB that follow one another.
  const frame = new Uint8Array(zstdCompressSync(new Uint8Array(2 ** 20)));
  const body = concatParts(Array.from({ length: 1024 }, () => frame));
  const room = forged(chain, key, body);
  const before = Deno.memoryUsage().rss;
  const decoded = await chain.decode(key, 2 ** 20, room);
  assertEquals(decoded, { fault: "transform" });
  assert(Deno.memoryUsage().rss - before < 200 * 2 ** 20);
  const single = await chain.decode(key, 2 ** 20, forged(chain, key, frame));
  assertEquals(single.fault, undefined, "one frame is what was expected");
});

Deno.test("what cannot become smaller is kept as it is", async () => {
  using chain = new TransformChain([await zstdTransform()]);
  const parts = [crypto.getRandomValues(new Uint8Array(60_000))];
  const { parts: kept, byteLength } = await chain.encode({ key, parts, byteLength: 60_000 });
  assertEquals(byteLength, 60_000 + FRAME_HEADER_BYTES + tailBytes(key));
  assert(kept[1] === parts[0], "not even copied");
  const zeros = { key, parts: [new Uint8Array(60_000)], byteLength: 60_000 };
  assert((await chain.encode(zeros)).byteLength < 300);
});
