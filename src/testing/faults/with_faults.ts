import type {
  AdapterObject,
  Bitmap,
  CallOptions,
  DeleteResult,
  L2Adapter,
  LoadOptions,
  LookupOptions,
  ObjectKey,
  StoreResult,
} from "../../adapter/contract.ts";
import { untilAborted } from "../../base/abort.ts";
import { LruMap } from "../../base/lru_map.ts";
import { wrapAdapter } from "../../adapter/wrap_adapter.ts";
import { systemClock, wait } from "../../base/clock.ts";
import { firstHalf, flipBit, flippedCopy, saveSecondHalf, withExtraBit } from "./damage.ts";
import {
  type DueFaults,
  FAULT_KINDS,
  type FaultKind,
  type FaultOperation,
  type FaultPlan,
  FaultSchedule,
} from "./fault_plan.ts";

/** Maximum number of objects remembered for `wrong-key`. */
const MAX_SEEN = 256;

/** An adapter with injected faults. */
export interface FaultyAdapter extends L2Adapter {
  /** Number of faults injected so far, by kind. */
  readonly injected: Readonly<Record<FaultKind, number>>;
  /** Number of calls that currently hang. */
  readonly hanging: number;
  /** Lets the currently hanging calls continue. */
  release(): void;
}

/** Damages an object after a load has filled it. */
type Damage = () => void;

/** Injects the faults of a plan into the calls of an adapter. */
class Faults {
  readonly injected = Object.fromEntries(FAULT_KINDS.map((kind) => [kind, 0])) as Record<
    FaultKind,
    number
  >;
  readonly #inner: L2Adapter;
  readonly #plan: FaultPlan;
  readonly #schedule: FaultSchedule;
  readonly #hung = new Set<() => void>();
  readonly #closing = new AbortController();
  /** Keys and sizes of stored and loaded objects, most recent last. */
  readonly #seen = new LruMap<{ key: ObjectKey; byteLength: number }>(
    ({ key }) => key.id,
    MAX_SEEN,
  );

  constructor(inner: L2Adapter, plan: FaultPlan) {
    this.#inner = inner;
    this.#plan = plan;
    this.#schedule = new FaultSchedule(plan);
  }

  get hanging(): number {
    return this.#hung.size;
  }

  release(): void {
    for (const resume of [...this.#hung]) resume();
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error("closed"));
    await this.#inner[Symbol.asyncDispose]();
  }

  async store(objects: readonly AdapterObject[], options: CallOptions): Promise<StoreResult> {
    const due = await this.#begin("store", options);
    const result = await this.#inner.store(this.#damaged(objects, due), options);
    for (const object of result.stored.gather(objects)) this.#see(object);
    return this.#isDue(due, "wrong-size")
      ? { ...result, stored: withExtraBit(result.stored) }
      : result;
  }

  async lookup(keys: readonly ObjectKey[], options: LookupOptions): Promise<Bitmap> {
    const due = await this.#begin("lookup", options);
    const found = await this.#inner.lookupAndLock(keys, options);
    if (!this.#isDue(due, "wrong-size")) return found;
    // The caller rejects a result of the wrong size and cannot know which keys are locked.
    this.#inner.unlock?.(found.gather(keys));
    return withExtraBit(found);
  }

  async load(objects: readonly AdapterObject[], options: LoadOptions): Promise<Bitmap> {
    const due = await this.#begin("load", options);
    const damages = new Map<number, Damage[]>();
    const asked = this.#prepareDamage(objects, due, damages);
    const damageOnce = (index: number): boolean => {
      for (const damage of damages.get(index) ?? []) damage();
      return damages.delete(index);
    };
    const { onLoaded } = options;
    const damageAndNotify: typeof onLoaded = onLoaded && ((index, fault, proof) => {
      // A proof tells of the bytes that were read, which a disk or network would have damaged.
      if (damageOnce(index)) onLoaded(index, fault);
      else onLoaded(index, fault, proof);
    });
    const loaded = await this.#inner.load(
      asked,
      damageAndNotify ? { ...options, onLoaded: damageAndNotify } : options,
    );
    for (const [i, object] of objects.entries()) {
      if (!loaded.test(i)) continue;
      damageOnce(i);
      this.#see(object);
    }
    return this.#isDue(due, "wrong-size") ? withExtraBit(loaded) : loaded;
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<DeleteResult> {
    const due = await this.#begin("delete", options);
    const result = await this.#inner.delete?.(keys, options);
    if (result === undefined) throw new TypeError("The adapter does not support delete");
    return this.#isDue(due, "wrong-size")
      ? { ...result, deleted: withExtraBit(result.deleted) }
      : result;
  }

  /** Injects the faults that precede a call: errors, delays and hangs. */
  async #begin(operation: FaultOperation, { signal }: CallOptions): Promise<DueFaults> {
    const due = this.#schedule.next(operation);
    const { clock = systemClock } = this.#plan;
    const closing = this.#closing.signal;
    for (const { kind, delayMs = 100 } of due.rules) {
      if (kind === "error") {
        this.injected.error++;
        throw new Error(`injected: call ${due.call} of ${operation} fails`);
      }
      if (kind === "delay") {
        this.injected.delay++;
        await wait(clock, delayMs, AbortSignal.any([signal, closing]));
      }
      if (kind === "hang") {
        this.injected.hang++;
        await this.#hang(AbortSignal.any([signal, closing]));
      }
      closing.throwIfAborted();
    }
    return due;
  }

  async #hang(signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#hung.add(resolve);
    try {
      await untilAborted(signal, promise);
    } finally {
      this.#hung.delete(resolve);
    }
  }

  #isDue({ rules }: DueFaults, kind: FaultKind): boolean {
    const isDue = rules.some((rule) => rule.kind === kind);
    if (isDue) this.injected[kind]++;
    return isDue;
  }

  /** The objects to store, with damaged copies. The caller's buffers are not changed. */
  #damaged(objects: readonly AdapterObject[], due: DueFaults): readonly AdapterObject[] {
    const chosen = due.pick(objects.length);
    let damaged = objects;
    for (const { kind } of due.rules) {
      const object = damaged[chosen];
      if (object === undefined || object.byteLength === 0) continue;
      if (kind === "short") damaged = damaged.with(chosen, firstHalf(object));
      else if (kind === "corrupt") damaged = damaged.with(chosen, flippedCopy(object, due.pick));
      else continue;
      this.injected[kind]++;
    }
    return damaged;
  }

  /** The objects to request, and in `damages` the damage to apply when they are filled. */
  #prepareDamage(
    objects: readonly AdapterObject[],
    due: DueFaults,
    damages: Map<number, Damage[]>,
  ): readonly AdapterObject[] {
    const chosen = due.pick(objects.length);
    const object = objects[chosen];
    if (object === undefined || object.byteLength === 0) return objects;
    const { key, parts, byteLength } = object;
    const faults: Damage[] = [];
    const add = (kind: FaultKind, damage: Damage): void => {
      faults.push(() => {
        damage();
        this.injected[kind]++;
      });
    };
    damages.set(chosen, faults);
    let asked = objects;
    for (const { kind } of due.rules) {
      if (kind === "corrupt") add(kind, () => flipBit(parts, due.pick(8 * byteLength)));
      if (kind === "short") add(kind, saveSecondHalf(object));
      const other = kind === "wrong-key" ? this.#lookalike(object) : undefined;
      if (other === undefined || other.id === key.id) continue;
      asked = asked.with(chosen, { ...object, key: other, parts, byteLength });
      add("wrong-key", () => {});
    }
    return asked;
  }

  /** The most recently seen other key whose object has the same size. */
  #lookalike({ key, byteLength }: AdapterObject): ObjectKey | undefined {
    return [...this.#seen]
      .findLast((seen) => seen.byteLength === byteLength && seen.key.id !== key.id)?.key;
  }

  #see({ key, byteLength }: AdapterObject): void {
    this.#seen.put({ key, byteLength });
  }
}

/**
 * Wraps an adapter and injects faults according to a plan, to test code that uses adapters. Never
 * changes the buffers of a store's caller. Closing it ends hanging and delayed calls, and closes
 * `adapter`.
 *
 * @throws {RangeError} If the plan is not valid.
 */
export function withFaults(adapter: L2Adapter, plan: FaultPlan): FaultyAdapter {
  const faults = new Faults(adapter, plan);
  return wrapAdapter<Omit<FaultyAdapter, keyof L2Adapter>>(adapter, {
    store: (objects, options) => faults.store(objects, options),
    lookupAndLock: (keys, options) => faults.lookup(keys, options),
    load: (objects, options) => faults.load(objects, options),
    delete: (keys, options) => faults.delete(keys, options),
    [Symbol.asyncDispose]: () => faults.close(),
    get injected() {
      return { ...faults.injected };
    },
    get hanging() {
      return faults.hanging;
    },
    release: () => faults.release(),
  });
}
