import type { L2Adapter } from "../../../src/adapter/contract.ts";
import { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import type { BreakerOptions } from "../../../src/l2/circuit_breaker.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { mapAdapter } from "../../support/adapters.ts";
import type { RecordingAdapter } from "../../support/recording_adapter.ts";
import { testKeys, testLayout } from "../../support/objects.ts";
import { emptyObject, sealedObject } from "../../support/sealed_objects.ts";

/** Deadlines that differ from one another. */
export const TIMEOUTS = { lookupMs: 20, loadMs: 30, storeMs: 60, deleteMs: 10, closeMs: 10 };
/** When circuits open, and for how long. */
export const BREAKER: BreakerOptions = { failures: 3, coolDownMs: 1000, maxCoolDownMs: 4000 };
export const layout = testLayout(256);
export const keys = testKeys(3);
/** Objects of the keys. */
export const sealed = keys.map((key) => sealedObject(key, layout));
/** Buffers for the objects. */
export const empty = () => keys.map((key) => emptyObject(key, layout));
export const prefix = { prefix: true };

/** A guard and its clock. */
export interface Guarded {
  readonly guard: AdapterGuard;
  readonly clock: ManualClock;
}

/** A guard around an adapter that keeps the contract except for `overrides`. */
export function guardOf(
  overrides: Partial<L2Adapter> = {},
  breaker: Partial<BreakerOptions> = {},
): Guarded {
  const clock = new ManualClock();
  const adapter = { ...mapAdapter(), ...overrides };
  const guard = new AdapterGuard(adapter, {
    id: 7,
    type: "faulty",
    clock,
    timeouts: TIMEOUTS,
    breaker: { ...BREAKER, ...breaker },
  });
  return { guard, clock };
}

/** A guard around an adapter that holds `sealed`. */
export async function filledGuard(overrides: Partial<L2Adapter> = {}): Promise<Guarded> {
  const held = new Map<string, Uint8Array<ArrayBuffer>>();
  await mapAdapter(held).store(sealed, { signal: new AbortController().signal });
  return guardOf({ ...mapAdapter(held), ...overrides });
}

/** A method with an arbitrary answer. */
export function answerWith(value: unknown): () => Promise<never> {
  return () => Promise.resolve(value as never);
}

/** A method that never answers. */
export function hang(): Promise<never> {
  return new Promise(() => {});
}

/** The methods of an adapter, to be overridden or to override those of another. */
export function bound(adapter: RecordingAdapter) {
  return {
    store: adapter.store.bind(adapter),
    lookupAndLock: adapter.lookupAndLock.bind(adapter),
    unlock: adapter.unlock.bind(adapter),
    load: adapter.load.bind(adapter),
    delete: adapter.delete.bind(adapter),
    list: adapter.list.bind(adapter),
  };
}
