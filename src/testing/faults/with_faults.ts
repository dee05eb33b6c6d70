import type {
  AdapterCapabilities,
  AdapterObject,
  Bitmap,
  CallOptions,
  DeleteResult,
  L2Adapter,
  LoadOptions,
  LookupOptions,
  ObjectKey,
  StoreResult,
} from "../../l2/adapter.ts";
import { wrapAdapter } from "../../l2/wrap_adapter.ts";
import { systemClock, wait } from "../../runtime/clock.ts";
import { firstHalf, flipBit, flippedCopy, keepSecondHalf, oneBitMore } from "./damage.ts";
import {
  type DueFaults,
  FAULT_KINDS,
  type FaultKind,
  type FaultOperation,
  type FaultPlan,
  FaultSchedule,
} from "./fault_plan.ts";

/** Objects that are remembered, for `wrong-key`. */
const MAX_SEEN = 256;

/** An adapter with which things go wrong. */
export interface FaultyAdapter extends L2Adapter {
  /** How often each fault has befallen a call. */
  readonly injected: Readonly<Record<FaultKind, number>>;
  /** Calls that hang now. */
  readonly hanging: number;
  /** Lets the calls that hang now go on. */
  release(): void;
}

/** What happens to an object of a load once it is filled. */
type Damage = () => void;

/** What the calls of one adapter have in common. */
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
  /** Keys that were stored or loaded, the latest last, and how large their objects are. */
  readonly #seen = new Map<string, { key: ObjectKey; byteLength: number }>();

  constructor(inner: L2Adapter, plan: FaultPlan) {
    this.#inner = inner;
    this.#plan = plan;
    this.#schedule = new FaultSchedule(plan);
  }

  get hanging(): number {
    return this.#hung.size;
  }

  release(): void {
    for (const go of [...this.#hung]) go();
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
      ? { ...result, stored: oneBitMore(result.stored) }
      : result;
  }

  async lookup(keys: readonly ObjectKey[], options: LookupOptions): Promise<Bitmap> {
    const due = await this.#begin("lookup", options);
    const found = await this.#inner.lookupAndLock(keys, options);
    if (!this.#isDue(due, "wrong-size")) return found;
    // Nobody can tell from that answer what is locked.
    this.#inner.unlock?.(found.gather(keys));
    return oneBitMore(found);
  }

  async load(objects: readonly AdapterObject[], options: LoadOptions): Promise<Bitmap> {
    const due = await this.#begin("load", options);
    const damages = new Map<number, Damage[]>();
    const asked = this.#prepareDamage(objects, due, damages);
    const damage = (index: number): void => {
      for (const harm of damages.get(index) ?? []) harm();
      damages.delete(index);
    };
    const { onLoaded } = options;
    const tell: typeof onLoaded = onLoaded && ((...told) => {
      damage(told[0]);
      onLoaded(...told);
    });
    const loaded = await this.#inner.load(asked, tell ? { ...options, onLoaded: tell } : options);
    for (const [i, object] of objects.entries()) {
      if (!loaded.test(i)) continue;
      damage(i);
      this.#see(object);
    }
    return this.#isDue(due, "wrong-size") ? oneBitMore(loaded) : loaded;
  }

  async delete(keys: readonly ObjectKey[], options: CallOptions): Promise<DeleteResult> {
    const due = await this.#begin("delete", options);
    const result = await this.#inner.delete?.(keys, options);
    if (result === undefined) throw new TypeError("The adapter cannot delete");
    return this.#isDue(due, "wrong-size")
      ? { ...result, deleted: oneBitMore(result.deleted) }
      : result;
  }

  /** Lets what goes wrong before a call go wrong. */
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
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const giveUp = (): void => reject(signal.reason);
    this.#hung.add(resolve);
    signal.addEventListener("abort", giveUp, { once: true });
    try {
      await promise;
    } finally {
      this.#hung.delete(resolve);
      signal.removeEventListener("abort", giveUp);
    }
  }

  #isDue({ rules }: DueFaults, kind: FaultKind): boolean {
    const isDue = rules.some((rule) => rule.kind === kind);
    if (isDue) this.injected[kind]++;
    return isDue;
  }

  /** The objects as they are stored; the caller's buffers stay as they are. */
  #damaged(objects: readonly AdapterObject[], due: DueFaults): readonly AdapterObject[] {
    const victim = due.pick(objects.length);
    let damaged = objects;
    for (const { kind } of due.rules) {
      const object = damaged[victim];
      if (object === undefined || object.byteLength === 0) continue;
      if (kind === "short") damaged = damaged.with(victim, firstHalf(object));
      else if (kind === "corrupt") damaged = damaged.with(victim, flippedCopy(object, due.pick));
      else continue;
      this.injected[kind]++;
    }
    return damaged;
  }

  /** The objects that are asked for; what happens to them when they are filled. */
  #prepareDamage(
    objects: readonly AdapterObject[],
    due: DueFaults,
    damages: Map<number, Damage[]>,
  ): readonly AdapterObject[] {
    const victim = due.pick(objects.length);
    const object = objects[victim];
    if (object === undefined || object.byteLength === 0) return objects;
    const { key, parts, byteLength } = object;
    const harms: Damage[] = [];
    const add = (kind: FaultKind, harm: Damage): void => {
      harms.push(() => {
        harm();
        this.injected[kind]++;
      });
    };
    damages.set(victim, harms);
    let asked = objects;
    for (const { kind } of due.rules) {
      if (kind === "corrupt") add(kind, () => flipBit(parts, due.pick(8 * byteLength)));
      if (kind === "short") add(kind, keepSecondHalf(object));
      const other = kind === "wrong-key" ? this.#lookalike(object) : undefined;
      if (other === undefined || other.id === key.id) continue;
      asked = asked.with(victim, { ...object, key: other, parts, byteLength });
      add("wrong-key", () => {});
    }
    return asked;
  }

  /** The latest other key that was seen with an object of the same size. */
  #lookalike({ key, byteLength }: AdapterObject): ObjectKey | undefined {
    return [...this.#seen.values()]
      .findLast((seen) => seen.byteLength === byteLength && seen.key.id !== key.id)?.key;
  }

  #see({ key, byteLength }: AdapterObject): void {
    this.#seen.delete(key.id);
    this.#seen.set(key.id, { key, byteLength });
    const [oldest] = this.#seen.keys();
    if (this.#seen.size > MAX_SEEN && oldest !== undefined) this.#seen.delete(oldest);
  }
}

/**
 * An adapter that does what `adapter` does, but for what goes wrong by a plan: for tests of what
 * stands in front of adapters. Never changes what its caller stores. Closing it ends the calls that
 * hang or wait, and closes `adapter`.
 *
 * @throws {RangeError} If the plan cannot work.
 */
export function withFaults(adapter: L2Adapter, plan: FaultPlan): FaultyAdapter {
  const faults = new Faults(adapter, plan);
  const wrapped = wrapAdapter(adapter, {
    store: (objects, options) => faults.store(objects, options),
    lookupAndLock: (keys, options) => faults.lookup(keys, options),
    load: (objects, options) => faults.load(objects, options),
    ...(adapter.delete === undefined ? {} : {
      delete: (keys: readonly ObjectKey[], options: CallOptions) => faults.delete(keys, options),
    }),
    [Symbol.asyncDispose]: () => faults.close(),
  });
  return {
    ...wrapped,
    get capabilities(): AdapterCapabilities {
      return adapter.capabilities;
    },
    get injected() {
      return { ...faults.injected };
    },
    get hanging() {
      return faults.hanging;
    },
    release: () => faults.release(),
  };
}
