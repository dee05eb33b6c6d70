import { assert } from "@std/assert";
import { HostDevice } from "../../src/memory/host_device.ts";
import type { Slab } from "../../src/memory/memory_device.ts";

/** Options of a {@linkcode FragileDevice}. */
export interface FragileDeviceOptions {
  /** Maximum size of a slab, in bytes. */
  readonly maxSlabBytes?: number;
  /** Whether slabs are confirmed only when the test says so. */
  readonly answersLate?: boolean;
}

/** Host memory that tracks its slabs, can be lost, and can fail to allocate slabs. */
export class FragileDevice extends HostDevice {
  override isLost = false;
  override readonly maxSlabBytes: number;
  /** Live slabs. */
  readonly slabs = new Set<Slab>();
  readonly #answersLate: boolean;
  readonly #answers = new WeakMap<Slab, (valid: boolean) => void>();

  constructor({ maxSlabBytes = 2 ** 31, answersLate = false }: FragileDeviceOptions = {}) {
    super();
    this.maxSlabBytes = maxSlabBytes;
    this.#answersLate = answersLate;
  }

  override createSlab(byteLength: number): Slab {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const slab = super.createSlab(byteLength);
    const ours = this.#answersLate ? { ...slab, valid: promise } : slab;
    this.slabs.add(ours);
    this.#answers.set(ours, resolve);
    return ours;
  }

  override destroySlab(slab: Slab): void {
    assert(this.slabs.delete(slab), "a slab is destroyed once");
  }

  /** Confirms or fails the allocation of a slab. */
  answer(slab: Slab, isValid: boolean): void {
    this.#answers.get(slab)?.(isValid);
  }

  /** Total size of live slabs, in bytes. */
  get slabBytes(): number {
    let bytes = 0;
    for (const { byteLength } of this.slabs) bytes += byteLength;
    return bytes;
  }
}

/** Runs pending promise reactions. */
export async function microtasks(): Promise<void> {
  for (let i = 0; i < 12; i++) await null;
}
