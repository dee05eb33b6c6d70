import type { CliHost } from "./host.ts";
import { bytesInWords } from "./quantities.ts";

/** Time between two pictures, in milliseconds. */
const INTERVAL_MS = 100;
const BAR_CELLS = 16;

const encoder = new TextEncoder();

/** Progress of a long command: a line on a terminal, nothing elsewhere. */
export class Progress implements Disposable {
  readonly #host: CliHost;
  readonly #what: string;
  readonly #total: number | undefined;
  readonly #startedAt: number;
  #shownAt = -Infinity;

  /** @param total Units of the whole; left out if unknown. */
  constructor(host: CliHost, what: string, total?: number) {
    this.#host = host;
    this.#what = what;
    this.#total = total;
    this.#startedAt = host.clock.now();
  }

  /** Shows how far the command is: `done` units of the total, and the objects and bytes so far. */
  show(done: number, objects: number, bytes: number): void {
    const { isErrTerminal, clock, columns } = this.#host;
    const now = clock.now();
    if (!isErrTerminal || now - this.#shownAt < INTERVAL_MS) return;
    this.#shownAt = now;
    const speed = bytes / Math.max(1e-3, (now - this.#startedAt) / 1000);
    const counts = `${objects} objects, ${bytesInWords(bytes)}, ${bytesInWords(speed)}/s`;
    const line = `${this.#what} ${this.#bar(done)}${counts}`;
    this.#write(`\r\x1b[2K${line.slice(0, columns() - 1)}`);
  }

  /** Removes the line. */
  [Symbol.dispose](): void {
    if (this.#shownAt > -Infinity) this.#write("\r\x1b[2K");
  }

  #bar(done: number): string {
    const total = this.#total;
    if (total === undefined || !(total > 0)) return "";
    const share = Math.min(1, done / total);
    const full = Math.floor(share * BAR_CELLS);
    return `[${"#".repeat(full)}${"-".repeat(BAR_CELLS - full)}] ${Math.floor(share * 100)} % `;
  }

  #write(text: string): void {
    this.#host.err(encoder.encode(text));
  }
}
