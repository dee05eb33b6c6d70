import { getLogger } from "@logtape/logtape";
import type { Clock } from "../base/clock.ts";
import { Listeners } from "../base/listeners.ts";
import { LogLimit } from "../base/log_limit.ts";
import type { AdapterObject, DeleteResult, StoreResult } from "../adapter/contract.ts";
import type { TrailerFault } from "../adapter/object_trailer.ts";
import type { Bitmap } from "../keys/bitmap.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { AdapterOperation } from "./adapter_status.ts";

/** An object in an adapter; `byteLength` is what it occupies there. */
export type StoredObject = Pick<AdapterObject, "key" | "byteLength">;

/** A call of an adapter that ended. */
export interface EndedCall {
  readonly operation: AdapterOperation;
  /** `abandoned` if the caller stopped waiting before the deadline. */
  readonly outcome: "answered" | "failed" | "timed-out" | "abandoned";
  readonly durationMs: number;
}

/** Callbacks about the objects of an adapter. Errors that they throw are logged. */
export interface GuardListener {
  /** Objects were stored; `byteLength` is what each occupies. */
  stored?(objects: readonly StoredObject[]): void;
  /** Objects were loaded and verified. */
  accessed?(keys: readonly ObjectKey[]): void;
  /** Objects were deleted, which freed `bytes`. */
  deleted?(keys: readonly ObjectKey[], bytes: number): void;
  /** Objects were served from device memory; called occasionally, in prefix order. */
  used?(keys: readonly ObjectKey[]): void;
  /** The adapter evicted objects by itself. */
  evicted?(keys: readonly ObjectKey[]): void;
  /** An object was loaded but is not what was stored. */
  damaged?(key: ObjectKey, fault: TrailerFault): void;
  /** A call of the adapter ended, or its caller stopped waiting for it. */
  called?(call: EndedCall): void;
  /** The life-cycle state or a circuit changed. */
  stateChanged?(): void;
}

const logger = getLogger(["kvtier", "adapter"]);

/** The listeners of one guard, and how they are told of answers. */
export class GuardListeners extends Listeners<GuardListener> {
  readonly #type: string;
  readonly #log: LogLimit;

  constructor(id: number, type: string, clock: Clock) {
    super((error) => logger.error("{type}: a listener failed: {error}", { id, type, error }));
    this.#type = type;
    this.#log = new LogLimit(clock);
  }

  tellStored(objects: readonly AdapterObject[], { stored, sizes }: StoreResult): void {
    if (this.size === 0 || stored.popcount() === 0) return;
    const sized = sizes === undefined
      ? objects
      : objects.map(({ key, byteLength }, i) => ({ key, byteLength: sizes[i] ?? byteLength }));
    const kept = stored.gather(sized);
    this.tell((listener) => listener.stored?.(kept));
  }

  tellAccessed(keys: readonly ObjectKey[], loaded: Bitmap): void {
    if (this.size === 0 || loaded.popcount() === 0) return;
    const accessed = loaded.gather(keys);
    this.tell((listener) => listener.accessed?.(accessed));
  }

  tellDeleted(keys: readonly ObjectKey[], { deleted, bytes }: DeleteResult): void {
    if (this.size === 0 || deleted.popcount() === 0) return;
    const gone = deleted.gather(keys);
    this.tell((listener) => listener.deleted?.(gone, bytes));
  }

  tellDamaged(key: ObjectKey, fault: TrailerFault): void {
    const type = this.#type;
    const isLogged = this.#log.allows((lines) =>
      logger.warn("{type}: {lines} damaged objects were not logged", { type, lines })
    );
    if (isLogged) {
      logger.warn("{type}: object is damaged: {fault}", { type, fault, key: key.id });
    }
    this.tell((listener) => listener.damaged?.(key, fault));
  }
}
