import { assert } from "@std/assert";
import { HostDevice } from "../../src/memory/host_device.ts";
import type { Slab } from "../../src/memory/memory_device.ts";

/** Host memory that knows its slabs, can be lost, and lacks the memory of a slab when told so. */
export class FragileDevice extends HostDevice {
  override isLost = false;
  override readonly maxSlabBytes: number;
  /** Slabs that were created and not destroyed. */
  readonly slabs = new Set<Slab>();
  readonly #listeners = new WeakMap<Slab, (valid: boolean) => void>();

  constructor(maxSlabBytes = 2 ** 31) {
    super();
    this.maxSlabBytes = maxSlabBytes;
  }

  override createSlab(byteLength: number): Slab {
    let listener = (_valid: boolean): void => {};
    // No promise: it answers in the turn in which it is told to, or never.
    const valid: unknown = { then: (call: typeof listener) => void (listener = call) };
    const slab = { ...super.createSlab(byteLength), valid: valid as Promise<boolean> };
    this.slabs.add(slab);
    this.#listeners.set(slab, (isValid) => listener(isValid));
    return slab;
  }

  override destroySlab(slab: Slab): void {
    assert(this.slabs.delete(slab), "a slab is destroyed once");
  }

  /** Says that there is no memory behind a slab. */
  fail(slab: Slab): void {
    this.#listeners.get(slab)?.(false);
  }

  /** Bytes in live slabs. */
  get slabBytes(): number {
    let bytes = 0;
    for (const { byteLength } of this.slabs) bytes += byteLength;
    return bytes;
  }
}
