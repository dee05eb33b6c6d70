import type { CliHost } from "./host.ts";
import { Progress } from "./progress.ts";

const encoder = new TextEncoder();

/** Colours of the first word of a line. */
export type Colour = "green" | "yellow" | "red";

const COLOUR_CODES: Readonly<Record<Colour, number>> = { green: 32, yellow: 33, red: 31 };

/** Control characters and those that change the direction or the number of lines. */
// deno-lint-ignore no-control-regex -- names and messages may have them
const UNPRINTABLE = /[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** What a command says: lines or one JSON document on stdout, remarks and progress on stderr. */
export class Output {
  readonly #host: CliHost;
  readonly #isJson: boolean;
  /** Name of the list that is being written as JSON, and whether it has items. */
  #list: { hasItems: boolean } | undefined;
  #document: Readonly<Record<string, unknown>> = {};

  constructor(host: CliHost, isJson: boolean) {
    this.#host = host;
    this.#isJson = isJson;
  }

  /** Whether stdout gets a JSON document instead of lines. */
  get isJson(): boolean {
    return this.#isJson;
  }

  /** Prints a line to stdout, unless JSON is wanted; `colour` is that of its first word. */
  print(line: string, colour?: Colour): void {
    if (this.#isJson) return;
    const text = printable(line);
    const end = /^\S*/.exec(text)?.[0].length ?? 0;
    const isColoured = colour !== undefined && this.#host.isOutTerminal && this.#host.hasColours;
    this.#out(
      isColoured
        ? `\x1b[${COLOUR_CODES[colour]}m${text.slice(0, end)}\x1b[0m${text.slice(end)}\n`
        : `${text}\n`,
    );
  }

  /** Prints a line to stderr. */
  note(line: string): void {
    this.#host.err(encoder.encode(`${printable(line)}\n`));
  }

  /**
   * Sets fields of the JSON document, which is printed when the command has ended. Later fields
   * replace earlier ones of the same name.
   */
  json(fields: Readonly<Record<string, unknown>>): void {
    this.#document = { ...this.#document, ...fields };
  }

  /** Starts a list in the JSON document, whose items are written at once and not kept. */
  openList(name: string): (item: unknown) => void {
    if (!this.#isJson) return () => {};
    const list: { hasItems: boolean } = this.#list = { hasItems: false };
    this.#out(`{"${name}":[`);
    return (item) => {
      this.#out(`${list.hasItems ? "," : ""}\n${JSON.stringify(item)}`);
      list.hasItems = true;
    };
  }

  /** Prints the JSON document, if it is wanted. */
  end(): void {
    if (!this.#isJson) return;
    const text = JSON.stringify(this.#document, null, 2);
    if (this.#list === undefined) return this.#out(`${text}\n`);
    const fields = text === "{}" ? "\n}" : `,${text.slice(1)}`;
    this.#out(`${this.#list.hasItems ? "\n" : ""}]${fields}\n`);
  }

  /** Shows progress on stderr if that is a terminal; disposing of it removes it. */
  progress(what: string, total?: number): Progress {
    return new Progress(this.#host, printable(what), total);
  }

  #out(text: string): void {
    this.#host.out(encoder.encode(text));
  }
}

/** Replaces characters that a terminal would obey by their code points. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (char) => `\\u{${char.codePointAt(0)?.toString(16)}}`);
}
