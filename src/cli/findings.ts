import type { Colour, Output } from "./output.ts";

/** Verdict of a check: `wrong` needs to be mended, `slow` works, `note` is worth knowing. */
export type Verdict = "ok" | "note" | "slow" | "wrong";

const COLOURS: Readonly<Record<Verdict, Colour | undefined>> = {
  ok: "green",
  note: undefined,
  slow: "yellow",
  wrong: "red",
};

/** What a check found out. */
export interface Finding {
  /** What was checked. */
  readonly subject: string;
  readonly verdict: Verdict;
  /** What is so, and what to do about it. */
  readonly text: string;
}

/** Collects the findings of a command, and prints each at once. */
export class Findings {
  readonly list: Finding[] = [];
  readonly #out: Output;

  constructor(out: Output) {
    this.#out = out;
  }

  /** Adds a finding. */
  add(subject: string, verdict: Verdict, text: string): void {
    this.list.push({ subject, verdict, text });
    this.#out.print(`${verdict.padEnd(5)}  ${subject}: ${text}`, COLOURS[verdict]);
  }

  /** Number of findings with a verdict. */
  count(verdict: Verdict): number {
    return this.list.filter((finding) => finding.verdict === verdict).length;
  }
}
