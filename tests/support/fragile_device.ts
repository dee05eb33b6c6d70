import { assert } from "@std/assert";
import { HostDevice } from "../../src/memory/host_device.ts";
import type { Slab } from "../../src/memory/memory_device.ts";

/** How a {@linkcode FragileDevice} is set up. */
export interface FragileDeviceOptions {
  /** Largest slab. */
  readonly maxSlabBytes?: number;
  /** Whether it says only when it is told to whether it has the memory of a slab. */
  readonly answersLate?: boolean;
}

/** Host memory that knows its slabs, can be lost, and may lack the memory of a slab. */
export class FragileDevice extends HostDevice {
  override isLost = false;
  override readonly maxSlabBytes: number;
  /** Slabs that were created and not destroyed. */
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

  /** Says whether there is memory behind a slab. */
  answer(slab: Slab, isValid: boolean): void {
    this.#answers.get(slab)?.(isValid);
  }

  /** Bytes in live slabs. */
  get slabBytes(): number {
    let bytes = 0;
    for (const { byteLength } of this.slabs) bytes += byteLength;
    return bytes;
  }
}

/** Lets promises run that wait for nothing else. */
export async function microtasks(): Promise<void> {
  for (let i = 0; i < 12; i++) await null;
}
