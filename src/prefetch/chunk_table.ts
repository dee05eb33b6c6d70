import { bytesWithTrailer } from "../adapter/object_trailer.ts";
import type { ObjectLayout } from "../keys/kv_layout.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { KeyGroup } from "./key_group.ts";
import { MISS_REASONS, type MissReason } from "./miss_reason.ts";

/** State of one object of a request. */
export type ChunkState =
  /** Nothing is being done about it. */
  | "wanted"
  /** In L1; leased if it can be part of the prefix. */
  | "resident"
  /** Written by an engine; the device has not confirmed it yet. */
  | "filling"
  /** Being loaded by another request. */
  | "shared"
  /** This request asks the adapters for it; none has it locked. */
  | "asked"
  /** Locked for this request in at least one adapter. */
  | "found"
  /** Being loaded by this request, in a numbered attempt. */
  | "loading"
  /** Not to be had, for a reason. */
  | "absent"
  /** Blocked by a forget in progress. */
  | "blocked";

/** For each state, the states that can follow it. */
const MOVES: Readonly<Record<ChunkState, readonly ChunkState[]>> = {
  wanted: ["resident", "filling", "shared", "asked", "absent", "blocked"],
  resident: ["wanted"],
  filling: ["resident", "wanted"],
  shared: ["resident", "absent", "wanted"],
  asked: ["resident", "found", "absent", "wanted"],
  found: ["resident", "asked", "loading", "absent", "blocked", "wanted"],
  loading: ["resident", "asked", "found", "absent", "wanted"],
  // It may become resident without this request.
  absent: ["resident"],
  blocked: ["resident"],
};

const STATES = Object.keys(MOVES) as readonly ChunkState[];

/** Whether one request alone is to load an object in this state. */
function isOwn(state: ChunkState): boolean {
  return state === "asked" || state === "found" || state === "loading";
}

/** Whether the request waits for an object in this state without loading it. */
function isAwaited(state: ChunkState): boolean {
  return state === "filling" || state === "shared";
}

/**
 * States of the objects of one request. Each object has a *slot*, `chunk * groups + group`: in slot
 * order, no later object matters for a prefix that ends before an earlier one.
 */
export class ChunkTable {
  readonly groups: readonly KeyGroup[];
  /** Whether a group needs only its last chunks, so that a gap need not end the prefix. */
  readonly hasWindows: boolean;
  readonly #states: Uint8Array;
  readonly #reasons: Uint8Array;
  readonly #attempts: Uint32Array;
  readonly #onSettled: (slot: number) => void;
  #end: number;
  #awaited = 0;
  #onQuiet = (): void => {};

  /**
   * Every object is wanted.
   *
   * @param onSettled Called when this request is no longer to load an object.
   */
  constructor(groups: readonly KeyGroup[], onSettled: (slot: number) => void = () => {}) {
    this.groups = groups;
    this.hasWindows = groups.some(({ windowChunks }) => windowChunks !== undefined);
    this.#end = groups[0]?.keys.length ?? 0;
    this.#states = new Uint8Array(this.size);
    this.#reasons = new Uint8Array(this.size);
    this.#attempts = new Uint32Array(this.size);
    this.#onSettled = onSettled;
  }

  /** Chunk from which on no object can be part of the prefix. */
  get end(): number {
    return this.#end;
  }

  /** Number of slots that can be part of the prefix. */
  get size(): number {
    return this.#end * this.groups.length;
  }

  state(slot: number): ChunkState {
    return STATES[this.#states[slot] ?? 0] as ChunkState;
  }

  /** Why an object is absent. */
  reason(slot: number): MissReason | undefined {
    const state = this.state(slot);
    return state === "absent" ? MISS_REASONS[this.#reasons[slot] ?? 0] : undefined;
  }

  /** Whether this request alone is to load an object. */
  isOwn(slot: number): boolean {
    return isOwn(this.state(slot));
  }

  /** Whether an attempt is loading an object. */
  isLoading(slot: number, attempt: number): boolean {
    return this.state(slot) === "loading" && this.#attempts[slot] === attempt;
  }

  /** Whether an object is or may become resident. */
  isPossible(slot: number): boolean {
    const state = this.state(slot);
    return state !== "absent" && state !== "blocked";
  }

  /**
   * Moves an object to another state.
   *
   * @throws {Error} If that state cannot follow.
   */
  transition(slot: number, to: ChunkState): void {
    const from = this.state(slot);
    if (!MOVES[from].includes(to)) {
      throw new Error(`Object ${slot} cannot go from ${from} to ${to}`);
    }
    this.#states[slot] = STATES.indexOf(to);
    this.#awaited += Number(isAwaited(to)) - Number(isAwaited(from));
    if (isAwaited(from) && this.#awaited === 0) this.#onQuiet();
    if (isOwn(from) && !isOwn(to)) this.#onSettled(slot);
  }

  /** Moves an object to the state `loading`. */
  load(slot: number, attempt: number): void {
    this.#attempts[slot] = attempt;
    this.transition(slot, "loading");
  }

  /** Moves an object to the state `absent`. */
  miss(slot: number, reason: MissReason): void {
    this.#reasons[slot] = MISS_REASONS.indexOf(reason);
    this.transition(slot, "absent");
  }

  /**
   * Leaves the loading of objects to other requests.
   *
   * @returns Slots of those that this request alone was to load.
   */
  abandon(slots: readonly number[]): number[] {
    const left = slots.filter((slot) => this.isOwn(slot));
    for (const slot of left) this.transition(slot, "wanted");
    return left;
  }

  /** Shortens the prefix to end before a chunk. */
  narrow(end: number): void {
    this.#end = Math.min(this.#end, end);
  }

  /** Resolves when no object is filling or shared; `undefined` if none is. */
  whenQuiet(): Promise<void> | undefined {
    if (this.#awaited === 0) return undefined;
    return new Promise((resolve) => this.#onQuiet = resolve);
  }

  key(slot: number): ObjectKey {
    return this.#group(slot).keys[this.chunkOf(slot)] as ObjectKey;
  }

  layout(slot: number): ObjectLayout {
    return this.#group(slot).layout;
  }

  /** Chunk of a slot. */
  chunkOf(slot: number): number {
    return Math.floor(slot / this.groups.length);
  }

  /** Bytes of an object as an adapter stores it, trailer included. */
  bytes(slot: number): number {
    return bytesWithTrailer(this.key(slot), this.layout(slot));
  }

  #group(slot: number): KeyGroup {
    return this.groups[slot % this.groups.length] as KeyGroup;
  }
}
