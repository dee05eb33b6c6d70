import type { Clock } from "../runtime/clock.ts";

/** Without a refusal for this long, a spell of overload is over. */
const SPELL_MS = 30_000;
/** Refusals that are a spell, and no accident. */
const MIN_REFUSALS = 3;

/** Counts what is refused for want of room, and tells when that persists. */
export class Overload {
  readonly #clock: Clock;
  #refusals = 0;
  #objects = 0;
  #lastAt = -Infinity;

  /** Nothing was refused yet. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Objects that were refused in a spell that goes on; 0 if there is none. */
  get objects(): number {
    return this.#isOver || this.#refusals < MIN_REFUSALS ? 0 : this.#objects;
  }

  /** Objects were refused together. */
  note(objects: number): void {
    if (this.#isOver) [this.#refusals, this.#objects] = [0, 0];
    this.#refusals++;
    this.#objects += objects;
    this.#lastAt = this.#clock.now();
  }

  get #isOver(): boolean {
    return this.#clock.now() - this.#lastAt > SPELL_MS;
  }
}
