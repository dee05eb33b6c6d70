import {
  type AdapterEnvironment,
  Bitmap,
  concatParts,
  defineL2Adapter,
  fillParts,
  type L2Adapter,
  type L2AdapterModule,
} from "../../src/adapter/contract.ts";
import { systemClock } from "../../src/base/clock.ts";

/** A minimal conforming adapter: objects in a Map, no optional methods. */
export function mapAdapter(held = new Map<string, Uint8Array<ArrayBuffer>>()): L2Adapter {
  return {
    capabilities: {},
    store(objects) {
      for (const { key, parts } of objects) held.set(key.id, concatParts(parts));
      const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
      return Promise.resolve({ stored: new Bitmap(objects.length, objects.length), bytes });
    },
    lookupAndLock: (keys) => Promise.resolve(Bitmap.from(keys, ({ id }) => held.has(id))),
    load: (objects) =>
      Promise.resolve(
        Bitmap.from(objects, ({ key, parts }) => fillParts(parts, held.get(key.id))),
      ),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** A module without configuration that creates adapters with `create`. */
export function moduleOf(
  create: (environment: AdapterEnvironment) => L2Adapter,
  type = "hand_made",
): L2AdapterModule {
  return defineL2Adapter({
    type,
    summary: "Made by a test.",
    config: {},
    create: (_, environment) => create(environment),
  });
}

/** The environment of an adapter that a test opens directly. */
export function testEnvironment(
  overrides: Partial<AdapterEnvironment> = {},
): AdapterEnvironment {
  return {
    clock: systemClock,
    signal: new AbortController().signal,
    l1Memory: { type: "host", maxObjectBytes: 2 ** 26, alignmentBytes: 256 },
    onError: (error) => {
      throw error;
    },
    ...overrides,
  };
}
