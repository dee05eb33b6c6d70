import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { Fault } from "./sim_faults.ts";

/** An object as it lies in a store. */
export interface Held {
  readonly key: ObjectKey;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** What kind of storage adapter it is. */
export interface SimStoreKind {
  /** Name of the store, and type of its adapter. */
  readonly type: string;
  readonly canDelete: boolean;
  readonly canList: boolean;
  /** It evicts by itself beyond so many bytes. */
  readonly capacityBytes?: number;
  readonly maxObjectBytes?: number;
  /** Whether a lookup of a chain stops at the first gap. */
  readonly stopsAtGap: boolean;
  /** Whether calls end when their signal aborts. */
  readonly obeysSignals: boolean;
  /** Usual time of a call, and what a byte adds, in milliseconds. */
  readonly latencyMs: number;
  readonly msPerByte: number;
  /** How often it has which fault. */
  readonly faults: Readonly<Partial<Record<Fault, number>>>;
}

/** What an adapter keeps: it outlives the adapter, as a directory or a server does. */
export class SimStore {
  readonly kind: SimStoreKind;
  readonly held = new Map<string, Held>();
  /** Everything that ever was in it. */
  readonly everHeld = new Set<string>();
  /** Objects of which it ever handed out, or lost, bytes that were not stored. */
  readonly spoiled = new Set<string>();
  /** Objects that it ever denied to have. */
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
