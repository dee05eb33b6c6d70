import { assert, assertEquals } from "@std/assert";
import * as fc from "../support/fast_check.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { AdapterError } from "../../src/adapter/errors.ts";
import { testKeys } from "../support/objects.ts";
import { type SeededRandom, seededRandom } from "../support/random.ts";
import { runs } from "../support/runs.ts";
import { call, loadBits, openS3Lab, type S3Lab, storeBits } from "../support/s3_adapter.ts";
import { error, type Script, xml } from "../support/scripted_s3.ts";

const SIZE = 3_000;
const keys = testKeys(4);

/** A server whose responses are largely independent of its actions. */
function whims(random: SeededRandom): Script {
  return async (_, proceed) => {
    const kind = random.below(40);
    if (kind === 0) return error(503, "SlowDown");
    if (kind === 1) return error(403, "AccessDenied");
    if (kind === 2) return error(404, "NoSuchKey");
    if (kind === 3) return xml("<Error><Code>InternalError</Code></Error>");
    const response = await proceed();
    if (kind === 4) return error(500, "InternalError");
    if (kind > 6) return response;
    const bytes = await response.bytes();
    const end = random.below(bytes.byteLength + 1);
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(bytes.subarray(0, end)),
      pull: (controller) => kind === 5 ? controller.close() : controller.error(new Error("broken")),
    });
    const { status, headers } = response;
    const isBodiless = status === 204 || bytes.byteLength === 0;
    return new Response(isBodiless ? null : body, { status, headers });
  };
}

/** Loads an object, which must be a whole version or a miss. */
async function assertWhole({ adapter }: S3Lab, key: ObjectKey, versions: number): Promise<void> {
  const room = { key, parts: [new Uint8Array(1_000), new Uint8Array(2_000)], byteLength: SIZE };
  const loaded = await settled(adapter.load([room], call()));
  if (loaded?.test(0) !== true) return;
  const [first = 0] = room.parts[0] ?? [];
  assert(first > 0 && first <= versions, "a version that was stored");
  assert(room.parts.every((part) => part.every((byte) => byte === first)), "a mixture");
}

/** The result of a call, or `undefined` for an allowed failure. */
async function settled<Value>(work: Promise<Value> | undefined): Promise<Value | undefined> {
  try {
    return await work;
  } catch (failure) {
    if (failure instanceof AdapterError) return undefined;
    throw failure;
  }
}

Deno.test("with any responses of a server, objects are whole or misses, and service resumes", async () => {
  const pieces = { "part_bytes": 700, "multipart_above_bytes": 0, "ranges_above_bytes": 0 };
  const variants = [{}, pieces, { ...pieces, "put_if_absent": true, "max_capacity_gb": 1 }];
  await fc.assert(
    fc.asyncProperty(fc.nat(), fc.constantFrom(...variants), async (seed, options) => {
      const random = seededRandom(seed);
      await using lab = await openS3Lab(options);
      const { server, adapter } = lab;
      server.script = whims(random);
      let versions = 0;
      for (let step = 0; step < 8; step++) {
        const fill = ++versions;
        const objects = keys.map((key) => {
          const bytes = new Uint8Array(SIZE).fill(fill);
          return { key, parts: [bytes.subarray(0, 999), bytes.subarray(999)], byteLength: SIZE };
        });
        await Promise.all([
          random.chance(0.7) ? settled(adapter.store(objects, call())) : undefined,
          ...keys.map((key) => assertWhole(lab, key, versions)),
          random.chance(0.2) ? settled(adapter.delete?.(keys, call())) : undefined,
          settled(adapter.lookupAndLock(keys, { ...call(), prefix: random.chance(0.5) })),
        ]);
        for (let i = 0; i <= step; i++) adapter.unlock?.(keys);
      }
      server.script = undefined;
      await adapter.delete?.(keys, call());
      assertEquals(await storeBits(lab, keys, SIZE), "1111");
      assertEquals(await loadBits(lab, keys, SIZE), "1111");
    }),
    runs(4),
  );
});
