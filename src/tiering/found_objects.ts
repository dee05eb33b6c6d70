import { Bitmap } from "../keys/bitmap.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { PrefetchRequest } from "./prefetch_request.ts";

/** One adapter's part in a {@linkcode FoundObjects}. */
export interface Source {
  /** Whom it is about. */
  readonly adapter: AdapterGuard;
  /** Of the objects, those that it has under a lock of ours. */
  locked: Bitmap;
  /** Those that it has as far as is known, locked or not. */
  has: Bitmap;
  /** How many of the objects its answer speaks of; 0 if there is none yet. */
  reach: number;
  /** Whether it has said what it has. */
  hasAnswered: boolean;
}

/**
 * What the adapters have of some objects of a request, and which locks of their lookups are held.
 * Objects are addressed by their slots.
 */
export class FoundObjects {
  /** The adapters. */
  readonly sources: readonly Source[];
  /** The keys of the objects, in the order of their slots. */
  readonly keys: readonly ObjectKey[];
  /** Whether the adapter, which must have all of it, may stop at the first gap. */
  readonly isChain: boolean;
  readonly #request: PrefetchRequest;
  readonly #slots: readonly number[];
  readonly #positions: ReadonlyMap<number, number>;
  readonly #hasWindows: boolean;
  /** No lock is held from this chunk on. */
  #end: number;

  /** Nothing is known yet. */
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

  /** Whether all adapters have said what they have. */
  get isComplete(): boolean {
    return this.sources.every(({ hasAnswered }) => hasAnswered);
  }

  /** Takes the answer of an adapter, which comes with locks. */
  answer(source: Source, found: Bitmap): void {
    source.hasAnswered = true;
    source.locked = found;
    source.has = found.or(found);
    source.reach = this.isChain ? found.countLeadingOnes() + 1 : found.length;
  }

  /** Whether an adapter has an object, locked for us. */
  has({ locked }: Source, slot: number): boolean {
    return locked.test(this.#position(slot));
  }

  /** Whether any adapter that passes a test has an object, locked for us. */
  isFound(slot: number, test: (source: Source) => boolean = () => true): boolean {
    return this.sources.some((source) => this.has(source, slot) && test(source));
  }

  /** Whether it is sure that no adapter has an object, or none could load it. */
  isAbsent(slot: number): boolean {
    const position = this.#position(slot);
    return this.sources.every(({ has, reach }) => position < reach && !has.test(position));
  }

  /** Whether an adapter has an object that was passed over, and that is not pinned. */
  wasHedged(slot: number): boolean {
    const position = this.#position(slot);
    return !this.#request.has(slot) &&
      this.sources.some(({ has, locked }) => has.test(position) && !locked.test(position));
  }

  /** These locks are no longer ours: a load gives them up. */
  handOver({ locked }: Source, slots: readonly number[]): void {
    for (const slot of slots) locked.clear(this.#position(slot));
  }

  /** An adapter could not load objects. */
  fail({ has }: Source, slots: readonly number[]): void {
    for (const slot of slots) has.clear(this.#position(slot));
  }

  /** An object cannot be loaded, whoever has it. */
  failEverywhere(slot: number): void {
    for (const source of this.sources) this.fail(source, [slot]);
  }

  /** Gives up the locks of objects at one adapter. */
  releaseLocks(source: Source, slots: readonly number[]): void {
    const held = slots.filter((slot) => this.has(source, slot));
    if (held.length === 0) return;
    this.handOver(source, held);
    source.adapter.unlock(held.map((slot) => this.#request.key(slot)));
  }

  /** Gives up the locks of objects at all adapters. */
  unlock(slots: readonly number[]): void {
    for (const source of this.sources) this.releaseLocks(source, slots);
  }

  /** Gives up all locks. */
  unlockAll(): void {
    this.unlock(this.#slots);
  }

  /** Gives up the locks behind a prefix that can only become shorter. */
  unlockBehind(length: number): void {
    if (this.isComplete && !this.#hasWindows) this.#unlockFrom(length);
  }

  /** Shortens the prefix where objects can be had from nobody any more. */
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
