import type { AdapterObject, CallOptions, L2Adapter } from "./contract.ts";
import { wrapAdapter } from "./wrap_adapter.ts";
import { type Clock, systemClock, wait } from "../base/clock.ts";

/** Latency and bandwidth of an adapter. */
export interface Latency {
  /** Total bandwidth of all stores and loads, in bytes per second. @default {Infinity} */
  readonly bandwidth?: number;
  /** Delay of each call in milliseconds. @default {0} */
  readonly callDelayMs?: number;
  /** Additional delay for each key of a call, in milliseconds. @default {0} */
  readonly perKeyMs?: number;
  /** Source of time. @default {the host's} */
  readonly clock?: Clock;
}

/**
 * Wraps an adapter and slows it down like a disk or a network: delays of concurrent calls overlap,
 * while their bytes share the bandwidth. An aborted call stops waiting. Closing it ends waiting
 * calls and closes `adapter`.
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
  /** Time at which the bytes of all calls so far will have been transferred. */
  let isFreeAt = -Infinity;

  const pause = async (ms: number, signal: AbortSignal): Promise<void> => {
    if (ms > 0) await wait(clock, ms, AbortSignal.any([signal, closing.signal]));
  };
  const begin = async (keys: number, { signal }: CallOptions): Promise<void> => {
    await pause(callDelayMs + perKeyMs * keys, signal);
    closing.signal.throwIfAborted();
  };
  const transfer = async (
    objects: readonly AdapterObject[],
    signal: AbortSignal,
  ): Promise<void> => {
    const bytes = objects.reduce((sum, { byteLength }) => sum + byteLength, 0);
    const now = clock.now();
    isFreeAt = Math.max(now, isFreeAt) + bytes / bandwidth * 1000;
    await pause(isFreeAt - now, signal);
  };
  // The wrapper has an optional method only if the adapter has it.
  const all = adapter as Required<L2Adapter>;

  return wrapAdapter(adapter, {
    async store(objects, options) {
      await begin(objects.length, options);
      await transfer(objects, options.signal);
      closing.signal.throwIfAborted();
      return await adapter.store(objects, options);
    },
    async lookupAndLock(keys, options) {
      await begin(keys.length, options);
      return await adapter.lookupAndLock(keys, options);
    },
    async load(objects, options) {
      await begin(objects.length, options);
      // Objects are in transfer until the call settles, so only faults are passed on before.
      const onLoaded: typeof options.onLoaded = (index, fault) => {
        if (fault !== undefined) options.onLoaded?.(index, fault);
      };
      const loaded = await adapter.load(objects, { ...options, onLoaded });
      await transfer(loaded.gather(objects), options.signal);
      return loaded;
    },
    async delete(keys, options) {
      await begin(keys.length, options);
      return await all.delete(keys, options);
    },
    async *list(options) {
      await begin(0, options);
      yield* all.list(options);
    },
    async usage(options) {
      await begin(0, options);
      return await all.usage(options);
    },
    async [Symbol.asyncDispose]() {
      closing.abort(new Error("closed"));
      await adapter[Symbol.asyncDispose]();
    },
  });
}
