import { getLogger } from "@logtape/logtape";
import type { ObjectKey } from "../keys/object_key.ts";

/** An adapter of a cache. */
export interface AdapterReference {
  /** Its stable id. */
  readonly id: number;
  /** Its type. */
  readonly type: string;
}

/** The events of a cache, by type, with what they tell. */
export interface CacheEventMap {
  /** An adapter took objects. */
  readonly stored: {
    readonly adapter: AdapterReference;
    readonly objects: number;
    readonly bytes: number;
  };
  /** Objects were loaded from an adapter and verified. */
  readonly loaded: { readonly adapter: AdapterReference; readonly objects: number };
  /** Objects were removed from an adapter. */
  readonly deleted: {
    readonly adapter: AdapterReference;
    readonly objects: number;
    readonly bytes: number;
  };
  /** An object that an adapter returned was not what had been stored; it is a miss. */
  readonly damaged: {
    readonly adapter: AdapterReference;
    readonly key: ObjectKey;
    readonly fault: string;
  };
  /** Objects will not be written to an adapter. */
  readonly dropped: { readonly objects: number; readonly reason: string };
  /** Device memory did not take objects that the engine wanted to write. */
  readonly skipped: { readonly objects: number; readonly reason: string };
  /** An object left device memory. */
  readonly removed: { readonly key: ObjectKey; readonly reason: string };
  /** A match was answered at its deadline. */
  readonly deadline: {
    readonly objects: number;
    readonly servedObjects: number;
    readonly deadlineMs: number;
  };
  /** An adapter was added. */
  readonly adapteradded: AdapterReference;
  /** An adapter began to be removed, works again or does not; see `reportStatus()`. */
  readonly adapterchanged: AdapterReference;
  /** An adapter was removed. */
  readonly adapterremoved: AdapterReference;
  /** The device was lost, and with it everything in L1. */
  readonly devicelost: { readonly message: string };
  /** The cache has a new device. */
  readonly deviceattached: { readonly description: string };
}

/** The type of an event. */
export type CacheEventType = keyof CacheEventMap;

/** An event of a cache; `detail` says what happened. */
export type CacheEvent<Type extends CacheEventType> = CustomEvent<CacheEventMap[Type]>;

/** What listens to events of one type. */
export type CacheEventListener<Type extends CacheEventType> =
  | ((event: CacheEvent<Type>) => void)
  | { handleEvent(event: CacheEvent<Type>): void };

const logger = getLogger(["kvtier", "events"]);

/**
 * What happens in a cache, as events. Listeners are called in the middle of its work: be brief.
 * What they throw is logged, and hurts nobody.
 */
export class CacheEvents extends EventTarget {
  /** Events that nobody ever listened to need not be made. */
  readonly #wanted = new Set<string>();
  /** What is really called for each listener. */
  readonly #guarded = new WeakMap<object, EventListener>();

  /** Listens to events of one type. */
  override addEventListener<Type extends CacheEventType>(
    type: Type,
    listener: CacheEventListener<Type> | null,
    options?: boolean | AddEventListenerOptions,
  ): void {
    if (listener === null) return;
    this.#wanted.add(type);
    super.addEventListener(type, this.#guard(listener), options);
  }

  /** Listens no more. */
  override removeEventListener<Type extends CacheEventType>(
    type: Type,
    listener: CacheEventListener<Type> | null,
    options?: boolean | EventListenerOptions,
  ): void {
    if (listener === null) return;
    super.removeEventListener(type, this.#guard(listener), options);
  }

  /** Tells those who listen. */
  emit<Type extends CacheEventType>(type: Type, detail: CacheEventMap[Type]): void {
    if (this.#wanted.has(type)) this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** One that never throws: what a listener throws, or rejects with, would end the process. */
  #guard<Type extends CacheEventType>(listener: CacheEventListener<Type>): EventListener {
    let guarded = this.#guarded.get(listener);
    if (guarded === undefined) {
      guarded = (event) => {
        const report = (error: unknown): void => {
          logger.error("A listener of {type} failed: {error}", { type: event.type, error });
        };
        try {
          const result: unknown = typeof listener === "function"
            ? listener(event as CacheEvent<Type>)
            : listener.handleEvent(event as CacheEvent<Type>);
          if (result instanceof Promise) result.catch(report);
        } catch (error) {
          report(error);
        }
      };
      this.#guarded.set(listener, guarded);
      // The host removes a listener whose signal aborts by the name that it knows.
      this.#guarded.set(guarded, guarded);
    }
    return guarded;
  }
}
