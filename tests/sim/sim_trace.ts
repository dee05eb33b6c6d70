import { createHash } from "node:crypto";
import type { Clock } from "../../src/runtime/clock.ts";

const KEPT_LINES = 60;
/** Lines that are hashed together. */
const HASHED_LINES = 1000;

/** Everything that can be observed, in order and with its simulated time. */
export class SimTrace {
  /** How often what happened. */
  readonly counts: Record<string, number> = {};
  readonly #clock: Clock;
  readonly #print: ((line: string) => void) | undefined;
  readonly #hash = createHash("sha256");
  #lines: string[] = [];
  #tail: readonly string[] = [];

  constructor(clock: Clock, print?: (line: string) => void) {
    this.#clock = clock;
    this.#print = print;
  }

  /** Notes that something happened. */
  note(event: string, details = ""): void {
    this.count(event);
    const line = `${this.#clock.now().toFixed(3)} ${event} ${details}`;
    this.#print?.(line);
    this.#lines.push(line);
    if (this.#lines.length === HASHED_LINES) this.#hashLines();
  }

  /** Counts what is noted elsewhere. */
  count(event: string): void {
    this.counts[event] = (this.counts[event] ?? 0) + 1;
  }

  /** What happened last. */
  tail(): string {
    return [...this.#tail, ...this.#lines].slice(-KEPT_LINES).join("\n");
  }

  /** Equal only if all was. */
  digest(): string {
    this.#hashLines();
    return this.#hash.copy().digest("hex");
  }

  #hashLines(): void {
    this.#hash.update(this.#lines.join("\n"));
    this.#tail = this.#lines.slice(-KEPT_LINES);
    this.#lines = [];
  }
}
