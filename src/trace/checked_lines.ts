import { failFor } from "../base/config_error.ts";

/** Longest line, in characters. */
const MAX_LINE = 16 * 1024 * 1024;
/** Largest number of a field: the product of two is still exact enough. */
const MAX_NUMBER = 2 ** 48;

/** Lines of a JSONL file that may contain anything; errors name the file and the line. */
export class CheckedLines {
  readonly #name: string;
  #line = 0;

  /** @param name Name of the file, for errors. */
  constructor(name: string) {
    this.#name = name;
  }

  /** Reads the lines one by one. */
  async *read(bytes: ReadableStream<BufferSource>): AsyncGenerator<string> {
    let rest = "";
    for await (const text of bytes.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield this.#next(line);
      if (rest.length > MAX_LINE) this.#next(rest);
    }
    if (rest !== "") yield this.#next(rest);
  }

  /** Parses a line that is an object. */
  object(text: string): Readonly<Record<string, unknown>> {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return this.fail(undefined, "JSON", "something else");
    }
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
    return this.fail(undefined, "an object", value);
  }

  /** A number of at least 0. */
  number(fields: Readonly<Record<string, unknown>>, name: string): number {
    const value = fields[name];
    if (typeof value === "number" && value >= 0 && value <= MAX_NUMBER) return value;
    return this.fail(name, `a number from 0 to ${MAX_NUMBER}`, value);
  }

  /** An integer of at least 0. */
  count(fields: Readonly<Record<string, unknown>>, name: string): number {
    const value = this.number(fields, name);
    return Number.isInteger(value) ? value : this.fail(name, "an integer", value);
  }

  /** @throws {ConfigError} Always. */
  fail(field: string | undefined, expected: string, received: unknown): never {
    const place = `line ${this.#line}${field === undefined ? "" : `, ${field}`}`;
    return failFor(this.#name)(place, expected, inShort(received));
  }

  #next(line: string): string {
    this.#line++;
    if (line.length > MAX_LINE) this.fail(undefined, `at most ${MAX_LINE} characters`, "more");
    return line;
  }
}

function inShort(value: unknown): unknown {
  if (Array.isArray(value)) return "an array";
  return typeof value === "string" && value.length > 40 ? `${value.slice(0, 40)}…` : value;
}
