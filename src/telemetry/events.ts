import { getLogger } from "@logtape/logtape";
import type { ObjectKey } from "../keys/object_key.ts";

/** Identifies an adapter of a cache. */
export interface AdapterReference {
  /** Stable id within the cache. */
  readonly id: number;
  /** Type, such as `fs`. */
  readonly type: string;
}

/** The events of a cache by type, each with its `detail`. */
export interface CacheEventMap {
  /** Objects were stored in an adapter. */
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
  /** An object that an adapter returned failed verification. It counts as a miss. */
  readonly damaged: {
    readonly adapter: AdapterReference;
    readonly key: ObjectKey;
    readonly fault: string;
  };
  /** Objects were dropped instead of written to an adapter. */
  readonly dropped: { readonly objects: number; readonly reason: string };
  /** Objects that the engine wanted to write did not fit into L1. */
  readonly skipped: { readonly objects: number; readonly reason: string };
  /** An object was removed from L1. */
  readonly removed: { readonly key: ObjectKey; readonly reason: string };
  /** A match returned at its deadline, before all objects were loaded. */
  readonly deadline: {
    readonly objects: number;
    readonly servedObjects: number;
    readonly deadlineMs: number;
  };
  /**
   * A call of an adapter ended, however it ended. Occurs often: for each batch of objects that is
   * looked up, loaded, stored or removed.
   */
  readonly called: {
    readonly adapter: AdapterReference;
    /** `lookup`, `load`, `store`, `delete`, `list`, `usage` or `close`. */
    readonly operation: string;
    /** `abandoned` if the caller stopped waiting before the deadline. */
    readonly outcome: "answered" | "failed" | "timed-out" | "abandoned";
    readonly durationMs: number;
  };
  /** An adapter was added. */
  readonly adapteradded: AdapterReference;
  /**
   * The state of an adapter changed: failing, working again, being removed. See `reportStatus()`.
   */
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

/** An event of a cache, with its data in `detail`. */
export type CacheEvent<Type extends CacheEventType> = CustomEvent<CacheEventMap[Type]>;

/** A listener for events of one type. */
export type CacheEventListener<Type extends CacheEventType> =
  | ((event: CacheEvent<Type>) => void)
  | { handleEvent(event: CacheEvent<Type>): void };

const logger = getLogger(["kvtier", "events"]);

/**
 * Event target of a cache. Listeners run synchronously within cache operations and should return
 * quickly. Errors that they throw or reject with are logged and do not affect the cache.
 */
export class CacheEvents extends EventTarget {
  /** Types that have ever had a listener; events of other types are not created. */
  readonly #wanted = new Set<string>();
  /** The wrapper registered for each listener. */
  readonly #guarded = new WeakMap<object, EventListener>();

  /** Adds a listener for events of one type. */
  override addEventListener<Type extends CacheEventType>(
    type: Type,
    listener: CacheEventListener<Type> | null,
    options?: boolean | AddEventListenerOptions,
  ): void {
    if (listener === null) return;
    this.#wanted.add(type);
    super.addEventListener(type, this.#guard(listener), options);
  }

  /** Removes a listener. */
  override removeEventListener<Type extends CacheEventType>(
    type: Type,
    listener: CacheEventListener<Type> | null,
    options?: boolean | EventListenerOptions,
  ): void {
    if (listener === null) return;
    super.removeEventListener(type, this.#guard(listener), options);
  }

  /** Dispatches an event, if its type has ever had a listener. */
  emit<Type extends CacheEventType>(type: Type, detail: CacheEventMap[Type]): void {
    if (this.#wanted.has(type)) this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** Wraps a listener so that it never throws: an uncaught error would end the process. */
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
      // When a listener's signal aborts, the host calls removeEventListener with the wrapper.
      this.#guarded.set(guarded, guarded);
    }
    return guarded;
  }
}
