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
 * Objects are addressed by their cells.
 */
export class FoundObjects {
  /** The adapters. */
  readonly sources: readonly Source[];
  /** The keys of the objects, in the order of their cells. */
  readonly keys: readonly ObjectKey[];
  /** Whether the adapter, which must have all of it, may stop at the first gap. */
  readonly isChain: boolean;
  readonly #request: PrefetchRequest;
  readonly #cells: readonly number[];
  readonly #positions: ReadonlyMap<number, number>;
  readonly #hasWindows: boolean;
  /** No lock is held from this chunk on. */
  #end: number;

  /** Nothing is known yet. */
  constructor(
    request: PrefetchRequest,
    cells: readonly number[],
    adapters: readonly AdapterGuard[],
  ) {
    this.sources = adapters.map((adapter) => ({
      adapter,
      locked: new Bitmap(cells.length),
      has: new Bitmap(cells.length),
      reach: 0,
      hasAnswered: false,
    }));
    this.keys = cells.map((cell) => request.key(cell));
    this.#request = request;
    this.#cells = cells;
    this.#positions = new Map(cells.map((cell, position) => [cell, position]));
    this.#hasWindows = request.rows.some(({ windowChunks }) => windowChunks !== undefined);
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
  has({ locked }: Source, cell: number): boolean {
    return locked.test(this.#position(cell));
  }

  /** Whether any adapter that passes a test has an object, locked for us. */
  isFound(cell: number, test: (source: Source) => boolean = () => true): boolean {
    return this.sources.some((source) => this.has(source, cell) && test(source));
  }

  /** Whether it is sure that no adapter has an object, or none could load it. */
  isAbsent(cell: number): boolean {
    const position = this.#position(cell);
    return this.sources.every(({ has, reach }) => position < reach && !has.test(position));
  }

  /** Whether an adapter has an object that was passed over, and that is not pinned. */
  isLeft(cell: number): boolean {
    const position = this.#position(cell);
    return !this.#request.has(cell) &&
      this.sources.some(({ has, locked }) => has.test(position) && !locked.test(position));
  }

  /** These locks are no longer ours: a load gives them up. */
  hand({ locked }: Source, cells: readonly number[]): void {
    for (const cell of cells) locked.clear(this.#position(cell));
  }

  /** An adapter could not load objects. */
  fail({ has }: Source, cells: readonly number[]): void {
    for (const cell of cells) has.clear(this.#position(cell));
  }

  /** An object cannot be loaded, whoever has it. */
  lose(cell: number): void {
    for (const source of this.sources) this.fail(source, [cell]);
  }

  /** Gives up the locks of objects at one adapter. */
  passOver(source: Source, cells: readonly number[]): void {
    const held = cells.filter((cell) => this.has(source, cell));
    if (held.length === 0) return;
    this.hand(source, held);
    source.adapter.unlock(held.map((cell) => this.#request.key(cell)));
  }

  /** Gives up the locks of objects at all adapters. */
  unlock(cells: readonly number[]): void {
    for (const source of this.sources) this.passOver(source, cells);
  }

  /** Gives up all locks. */
  unlockAll(): void {
    this.unlock(this.#cells);
  }

  /** Gives up the locks behind a prefix that can only become shorter. */
  unlockBehind(length: number): void {
    if (this.isComplete && !this.#hasWindows) this.#unlockFrom(length);
  }

  /** Shortens the prefix where objects can be had from nobody any more. */
  narrow(cells: readonly number[]): void {
    const request = this.#request;
    for (const cell of this.#hasWindows ? [] : cells) {
      if (!request.has(cell) && this.isAbsent(cell)) request.narrow(request.chunkOf(cell));
    }
    this.#unlockFrom(request.end);
  }

  #unlockFrom(chunk: number): void {
    if (chunk >= this.#end) return;
    this.#end = chunk;
    this.unlock(this.#cells.filter((cell) => this.#request.chunkOf(cell) >= chunk));
  }

  #position(cell: number): number {
    return this.#positions.get(cell) ?? -1;
  }
}
