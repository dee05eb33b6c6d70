import type { Clock } from "../base/clock.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { ObjectOutcome } from "../l2/guarded_answer.ts";
import type { ChunkState, ChunkTable } from "./chunk_table.ts";
import { MISS_REASONS, reasonOf } from "./miss_reason.ts";

/**
 * Once an adapter has found an object, the others get this many times its lookup time to answer.
 */
const GRACE_FACTOR = 4;
const MIN_GRACE_MS = 20;

/** What one adapter has said about an object. Higher numbers are miss reasons. */
const UNKNOWN = 0;
/** It has the object, locked for this request. */
const LOCKED = 1;
/** It has the object, which this request has no lock on any more. */
const RELEASED = 2;
const FIRST_REASON = 3;
const COMPUTED = FIRST_REASON + MISS_REASONS.indexOf("computed");

/** An adapter that is asked. */
export interface Source {
  readonly adapter: AdapterGuard;
  /** What it has said, by slot. */
  readonly answers: Uint8Array;
  hasAnswered: boolean;
  /** Whether it is asked at all. */
  readonly isAsked: boolean;
}

/** Asks all adapters for objects of a request, and keeps the locks of what they find. */
export class Lookup {
  /** One entry for each adapter. */
  readonly sources: readonly Source[];
  readonly #table: ChunkTable;
  readonly #slots: readonly number[];
  readonly #clock: Clock;
  readonly #over: AbortSignal;
  #isGraceOver = false;
  #isGivenUp = false;
  #cancelGrace: (() => void) | undefined;
  #notify = (): void => {};
  /** Chunk from which on no lock is held. */
  #end = Infinity;

  /**
   * @param slots Slots of the objects, in order.
   * @param isWorthAsking Whether an adapter is asked; what another one has is computed.
   * @param over Aborts when answers are of no use any more.
   */
  constructor(options: {
    readonly table: ChunkTable;
    readonly slots: readonly number[];
    readonly adapters: readonly AdapterGuard[];
    readonly isWorthAsking: (adapter: AdapterGuard) => boolean;
    readonly clock: Clock;
    readonly over: AbortSignal;
  }) {
    const { table, slots, adapters, isWorthAsking, clock, over } = options;
    this.#table = table;
    this.#slots = slots;
    this.#clock = clock;
    this.#over = over;
    this.sources = adapters.map((adapter) => {
      const isAsked = isWorthAsking(adapter);
      const answers = new Uint8Array(table.size).fill(isAsked ? UNKNOWN : COMPUTED);
      return { adapter, isAsked, answers, hasAnswered: !isAsked };
    });
  }

  /** The adapters that are asked. */
  get asked(): readonly Source[] {
    return this.sources.filter(({ isAsked }) => isAsked);
  }

  /** Whether all adapters have answered. */
  get isComplete(): boolean {
    return this.sources.every(({ hasAnswered }) => hasAnswered);
  }

  /** Whether adapters that have not answered are not worth waiting for. */
  get isGraceOver(): boolean {
    return this.#isGraceOver;
  }

  /** Whether adapters that have not answered are not waited for at all. */
  get isGivenUp(): boolean {
    return this.#isGivenUp;
  }

  /** Stops waiting for adapters that have not answered. */
  giveUp(): void {
    this.#isGivenUp = true;
    this.#isGraceOver = true;
    this.#notify();
  }

  /** Asks all adapters at once. */
  ask(): void {
    const startedAt = this.#clock.now();
    const keys = this.#keys(this.#slots);
    // A single adapter may stop at the first gap, unless there are windows behind it.
    const prefix = this.sources.length === 1 && !this.#table.hasWindows;
    this.#over.addEventListener("abort", () => {
      this.#cancelGrace?.();
      this.#notify();
    }, { once: true });
    for (const source of this.asked) {
      source.adapter.lookup(keys, { prefix, signal: this.#over }).then((answer) => {
        const { done } = answer;
        if (this.#over.aborted) return source.adapter.unlock(done.gather(keys));
        const reach = prefix ? done.countLeadingOnes() + 1 : done.length;
        source.hasAnswered = true;
        for (const [i, slot] of this.#slots.entries()) {
          if (i >= reach && !done.test(i)) continue;
          this.record(source, slot, answer.outcomeOf(i));
          if (this.#table.state(slot) !== "loading") this.settle(slot);
        }
        if (!this.isComplete && done.popcount() > 0) this.#startGrace(startedAt);
        this.#notify();
      });
    }
  }

  /** Resolves with the next answer, at the end of the grace time, or when the search is over. */
  next(): Promise<void> {
    return new Promise((resolve) => this.#notify = resolve);
  }

  /** Whether an adapter has an object locked for this request. */
  holds({ answers }: Source, slot: number): boolean {
    return answers[slot] === LOCKED;
  }

  /** Whether any adapter that passes `test` has an object locked for this request. */
  isHeld(slot: number, test: (source: Source) => boolean): boolean {
    return this.sources.some((source) => this.holds(source, slot) && test(source));
  }

  /** Whether an adapter has an object that was neither loaded nor is locked: its load was hedged. */
  wasReleased(slot: number): boolean {
    return this.#table.state(slot) === "asked" &&
      this.sources.some(({ answers }) => answers[slot] === RELEASED);
  }

  /** Hands the lock of an object over to an attempt to load it, which releases it. */
  take({ answers }: Source, slot: number, attempt: number): void {
    answers[slot] = RELEASED;
    this.#table.load(slot, attempt);
  }

  /** Records that an adapter has an object locked for this request, or why it does not have it. */
  record({ answers }: Source, slot: number, outcome: ObjectOutcome): void {
    answers[slot] = outcome === "done"
      ? LOCKED
      : FIRST_REASON + MISS_REASONS.indexOf(reasonOf(outcome));
  }

  /** Moves an object that this request is to load to the state that the answers give it. */
  settle(slot: number): void {
    if (!this.#table.isOwn(slot)) return;
    let state: ChunkState = "absent";
    let worst = FIRST_REASON;
    for (const { answers } of this.sources) {
      const answer = answers[slot] ?? UNKNOWN;
      worst = Math.max(worst, answer);
      if (answer === LOCKED) state = "found";
      else if (answer < FIRST_REASON && state === "absent") state = "asked";
    }
    if (state === "absent") this.#table.miss(slot, MISS_REASONS[worst - FIRST_REASON] ?? "absent");
    else if (this.#table.state(slot) !== state) this.#table.transition(slot, state);
  }

  /** Releases the locks of objects in some adapters. */
  release(slots: readonly number[], sources: readonly Source[] = this.sources): void {
    for (const { adapter, answers } of sources) {
      const held = slots.filter((slot) => answers[slot] === LOCKED);
      for (const slot of held) answers[slot] = RELEASED;
      if (held.length > 0) adapter.unlock(this.#keys(held));
    }
    for (const slot of slots) if (this.#table.state(slot) === "found") this.settle(slot);
  }

  /** Releases all locks from a chunk on. */
  releaseFrom(chunk: number): void {
    if (chunk >= this.#end) return;
    this.#end = chunk;
    this.release(this.#slots.filter((slot) => this.#table.chunkOf(slot) >= chunk));
  }

  #startGrace(startedAt: number): void {
    const graceMs = Math.max(MIN_GRACE_MS, GRACE_FACTOR * (this.#clock.now() - startedAt));
    this.#cancelGrace ??= this.#clock.schedule(() => {
      this.#isGraceOver = true;
      this.#notify();
    }, graceMs);
  }

  #keys(slots: readonly number[]): ObjectKey[] {
    return slots.map((slot) => this.#table.key(slot));
  }
}
