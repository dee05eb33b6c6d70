import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { PrefetchRequest } from "./prefetch_request.ts";

/** Lookup answer of one adapter. */
export interface Source {
  readonly adapter: AdapterGuard;
  /** Objects that it has found and that this request has locked. */
  locked: Bitmap;
  /** Objects that it is known to have, locked or not. */
  has: Bitmap;
  /** Number of leading objects that its answer covers; 0 before it has answered. */
  reach: number;
  hasAnswered: boolean;
}

/**
 * Objects of a request that the adapters have found, and the lookup locks that are held. Objects
 * are addressed by slots.
 */
export class FoundObjects {
  /** One entry for each adapter. */
  readonly sources: readonly Source[];
  /** Keys of the objects, in slot order. */
  readonly keys: readonly ObjectKey[];
  /**
   * Whether the lookup may stop at the first gap: there is a single adapter and no group has a
   * window.
   */
  readonly isChain: boolean;
  readonly #request: PrefetchRequest;
  readonly #slots: readonly number[];
  readonly #positions: ReadonlyMap<number, number>;
  readonly #hasWindows: boolean;
  /** Chunk from which on no lock is held. */
  #end: number;

  /** Starts without any answer. */
  constructor(
    request: PrefetchRequest,
    slots: readonly number[],
    adapters: readonly AdapterGuard[],
  ) {
    this.sources = adapters.map((adapter) => ({
      adapter,
      locked: new Bitmap(slots.length),
      has: new Bitmap(slots.length),
      reach: 0,
      hasAnswered: false,
    }));
    this.keys = slots.map((slot) => request.key(slot));
    this.#request = request;
    this.#slots = slots;
    this.#positions = new Map(slots.map((slot, position) => [slot, position]));
    this.#hasWindows = request.groups.some(({ windowChunks }) => windowChunks !== undefined);
    this.#end = request.end;
    this.isChain = adapters.length === 1 && !this.#hasWindows;
  }

  /** Whether all adapters have answered. */
  get isComplete(): boolean {
    return this.sources.every(({ hasAnswered }) => hasAnswered);
  }

  /** Records the answer of an adapter; its objects are locked. */
  answer(source: Source, found: Bitmap): void {
    source.hasAnswered = true;
    source.locked = found;
    source.has = found.or(found);
    source.reach = this.isChain ? found.countLeadingOnes() + 1 : found.length;
  }

  /** Whether an adapter has an object locked for this request. */
  has({ locked }: Source, slot: number): boolean {
    return locked.test(this.#position(slot));
  }

  /** Whether any adapter that passes `test` has an object locked for this request. */
  isFound(slot: number, test: (source: Source) => boolean = () => true): boolean {
    return this.sources.some((source) => this.has(source, slot) && test(source));
  }

  /** Whether every adapter lacks an object or failed to load it. */
  isAbsent(slot: number): boolean {
    const position = this.#position(slot);
    return this.sources.every(({ has, reach }) => position < reach && !has.test(position));
  }

  /** Whether an adapter has an object that is neither leased nor locked: its load was hedged. */
  wasHedged(slot: number): boolean {
    const position = this.#position(slot);
    return !this.#request.has(slot) &&
      this.sources.some(({ has, locked }) => has.test(position) && !locked.test(position));
  }

  /** Hands locks over to a load, which releases them. */
  handOver({ locked }: Source, slots: readonly number[]): void {
    for (const slot of slots) locked.clear(this.#position(slot));
  }

  /** Records that an adapter failed to load objects. */
  fail({ has }: Source, slots: readonly number[]): void {
    for (const slot of slots) has.clear(this.#position(slot));
  }

  /** Records that an object cannot be loaded from any adapter. */
  failEverywhere(slot: number): void {
    for (const source of this.sources) this.fail(source, [slot]);
  }

  /** Releases the locks of objects in one adapter. */
  releaseLocks(source: Source, slots: readonly number[]): void {
    const held = slots.filter((slot) => this.has(source, slot));
    if (held.length === 0) return;
    this.handOver(source, held);
    source.adapter.unlock(held.map((slot) => this.#request.key(slot)));
  }

  /** Releases the locks of objects in all adapters. */
  unlock(slots: readonly number[]): void {
    for (const source of this.sources) this.releaseLocks(source, slots);
  }

  unlockAll(): void {
    this.unlock(this.#slots);
  }

  /** Releases the locks behind a prefix that can only become shorter. */
  unlockBehind(length: number): void {
    if (this.isComplete && !this.#hasWindows) this.#unlockFrom(length);
  }

  /** Shortens the prefix at objects that no adapter can provide any more. */
  narrow(slots: readonly number[]): void {
    const request = this.#request;
    for (const slot of this.#hasWindows ? [] : slots) {
      if (!request.has(slot) && this.isAbsent(slot)) request.narrow(request.chunkOf(slot));
    }
    this.#unlockFrom(request.end);
  }

  #unlockFrom(chunk: number): void {
    if (chunk >= this.#end) return;
    this.#end = chunk;
    this.unlock(this.#slots.filter((slot) => this.#request.chunkOf(slot) >= chunk));
  }

  #position(slot: number): number {
    return this.#positions.get(slot) ?? -1;
  }
}
