import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { Fault } from "./sim_faults.ts";

/** A stored object. */
export interface Held {
  readonly key: ObjectKey;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Kind of a storage adapter. */
export interface SimStoreKind {
  /** Name of the store, and type of its adapter. */
  readonly type: string;
  readonly canDelete: boolean;
  readonly canList: boolean;
  /** Capacity in bytes beyond which it evicts by itself. */
  readonly capacityBytes?: number;
  readonly maxObjectBytes?: number;
  /** Whether a lookup of a chain stops at the first gap. */
  readonly stopsAtGap: boolean;
  /** Whether calls end when their signal aborts. */
  readonly obeysSignals: boolean;
  /** Usual duration of a call, and added duration for each byte, in milliseconds. */
  readonly latencyMs: number;
  readonly msPerByte: number;
  /** Frequency of each fault. */
  readonly faults: Readonly<Partial<Record<Fault, number>>>;
}

/** Storage behind an adapter; outlives it, like a directory or a server. */
export class SimStore {
  readonly kind: SimStoreKind;
  readonly held = new Map<string, Held>();
  /** Every object that was ever in it. */
  readonly everHeld = new Set<string>();
  /** Objects for which it ever returned or lost wrong bytes. */
  readonly spoiled = new Set<string>();
  /** Objects that it ever claimed not to have. */
  readonly denied = new Set<string>();

  constructor(kind: SimStoreKind) {
    this.kind = kind;
  }

  put(held: Held): void {
    this.held.delete(held.key.id);
    this.held.set(held.key.id, held);
    this.everHeld.add(held.key.id);
  }

  has({ id }: ObjectKey): boolean {
    return this.held.has(id);
  }

  get bytes(): number {
    return this.held.values().reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
  }
}
