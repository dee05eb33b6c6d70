import { createHash } from "node:crypto";
import type { Clock } from "../../src/base/clock.ts";

const KEPT_LINES = 60;
/** Number of lines hashed together. */
const HASHED_LINES = 1000;

/** Trace of everything observable, in order and with simulated time. */
export class SimTrace {
  /** Number of events by name. */
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

  /** Records an event. */
  note(event: string, details = ""): void {
    this.count(event);
    const line = `${this.#clock.now().toFixed(3)} ${event} ${details}`;
    this.#print?.(line);
    this.#lines.push(line);
    if (this.#lines.length === HASHED_LINES) this.#hashLines();
  }

  /** Counts an event that is recorded elsewhere. */
  count(event: string): void {
    this.counts[event] = (this.counts[event] ?? 0) + 1;
  }

  /** Latest events. */
  tail(): string {
    return [...this.#tail, ...this.#lines].slice(-KEPT_LINES).join("\n");
  }

  /** Digest of the trace: equal only if everything was. */
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
