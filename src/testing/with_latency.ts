import type { AdapterObject, CallOptions, L2Adapter, ObjectKey } from "../l2/adapter.ts";
import { wrapAdapter } from "../l2/wrap_adapter.ts";
import { type Clock, systemClock, wait } from "../runtime/clock.ts";

/** How slow an adapter is. */
export interface Latency {
  /** Bytes a second that all stores and loads together move. @default {Infinity} */
  readonly bandwidth?: number;
  /** What each call takes before anything else, in milliseconds. @default {0} */
  readonly callDelayMs?: number;
  /** What each key in a call takes beside that, in milliseconds. @default {0} */
  readonly perKeyMs?: number;
  /** Source of time. @default {the host's} */
  readonly clock?: Clock;
}

/**
 * An adapter that does what `adapter` does, as slowly as it is told to: like a disk or a network,
 * whose calls wait side by side while their bytes pass one after the other. An aborted call waits
 * no more. Closing it ends the calls that wait, and closes `adapter`.
 *
 * @throws {RangeError} If the bandwidth is not above 0, or a time is less than 0.
 */
export function withLatency(adapter: L2Adapter, latency: Latency): L2Adapter {
  const { bandwidth = Infinity, callDelayMs = 0, perKeyMs = 0, clock = systemClock } = latency;
  if (!(bandwidth > 0)) throw new RangeError(`bandwidth must be above 0: received ${bandwidth}`);
  for (const [name, ms] of Object.entries({ callDelayMs, perKeyMs })) {
    if (!(ms >= 0)) throw new RangeError(`${name} must be at least 0: received ${ms}`);
  }
  const closing = new AbortController();
  /** When the last byte of the calls so far has passed. */
  let isFreeAt = -Infinity;

  const pause = async (ms: number, signal: AbortSignal): Promise<void> => {
    if (ms > 0) await wait(clock, ms, AbortSignal.any([signal, closing.signal]));
  };
  const begin = async (keys: number, { signal }: CallOptions): Promise<void> => {
    await pause(callDelayMs + perKeyMs * keys, signal);
    closing.signal.throwIfAborted();
  };
  const pass = async (objects: readonly AdapterObject[], signal: AbortSignal): Promise<void> => {
    const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
    const now = clock.now();
    isFreeAt = Math.max(now, isFreeAt) + bytes / bandwidth * 1000;
    await pause(isFreeAt - now, signal);
  };
  const { delete: remove, usage, list } = adapter;

  return wrapAdapter(adapter, {
    async store(objects, options) {
      await begin(objects.length, options);
      await pass(objects, options.signal);
      closing.signal.throwIfAborted();
      return await adapter.store(objects, options);
    },
    async lookupAndLock(keys, options) {
      await begin(keys.length, options);
      return await adapter.lookupAndLock(keys, options);
    },
    async load(objects, options) {
      await begin(objects.length, options);
      // An object is on its way until its call settles: nobody is told before.
      const { onLoaded: _, ...quiet } = options;
      const loaded = await adapter.load(objects, quiet);
      await pass(loaded.gather(objects), options.signal);
      return loaded;
    },
    ...(remove === undefined ? {} : {
      delete: async (keys: readonly ObjectKey[], options: CallOptions) => {
        await begin(keys.length, options);
        return await remove.call(adapter, keys, options);
      },
    }),
    ...(list === undefined ? {} : {
      list: async function* (options) {
        await begin(0, options);
        yield* list.call(adapter, options);
      },
    }),
    ...(usage === undefined ? {} : {
      usage: async (options: CallOptions) => {
        await begin(0, options);
        return await usage.call(adapter, options);
      },
    }),
    async [Symbol.asyncDispose]() {
      closing.abort(new Error("closed"));
      await adapter[Symbol.asyncDispose]();
    },
  });
}
