import { parseArgs } from "node:util";
import type { ParseError } from "jsonc-parser";
import type { AdapterPlaces } from "../cache_wiring.ts";
import { ConfigError } from "../l2/adapter_error.ts";
import { unmetPath } from "../l2/host_path.ts";
import type { L2Config } from "../tiering/adapter_manager.ts";
import type { CommandArgs, OptionDef } from "./command.ts";

const EXAMPLE = '{"type":"fs","base_path":"/data/kv"}';

/** The option that says where there are more adapter modules. */
export const placesArgs = {
  "adapters-dir": {
    type: "string",
    valueHint: "DIR",
    description: "Directory of adapter modules beside those of this package",
  },
} as const satisfies Record<string, OptionDef>;

/** The options of a command that opens adapters. */
export const l2Args = {
  "l2-adapter": {
    type: "string",
    multiple: true,
    valueHint: "JSON",
    description: `An adapter: ${EXAMPLE}; if repeated, the preferred one first`,
  },
  "l2-config": {
    type: "string",
    valueHint: "FILE",
    description: "Instead, a JSON or JSONC file with a list of adapters, the preferred one first",
  },
  ...placesArgs,
} as const satisfies Record<string, OptionDef>;

/** Where adapter modules are looked for, as the arguments say. */
export function placesOf({ values }: CommandArgs): AdapterPlaces {
  const { "adapters-dir": adaptersDir } = values;
  return adaptersDir === undefined ? {} : { adaptersDir };
}

/**
 * The adapters that the arguments of a program name, as the `l2` option of the cache takes them:
 * each `--l2-adapter JSON`, or the list in the file of `--l2-config FILE`. Other arguments are
 * ignored.
 *
 * Requires `--allow-read` permission for that file.
 *
 * @throws {ConfigError} If there are none, or what is there is no configuration. What was written
 * is not repeated in the error: it may hold secrets.
 */
export async function readL2Config(args: readonly string[]): Promise<readonly L2Config[]> {
  const { values } = parseArgs({
    args: [...args],
    strict: false,
    options: {
      "l2-adapter": { type: "string", multiple: true },
      "l2-config": { type: "string" },
    },
  });
  const given = values["l2-adapter"];
  const file = values["l2-config"];
  if (Array.isArray(given)) {
    if (file !== undefined) fail("--l2-config", "nothing beside --l2-adapter", file);
    return given.map((text) => parseOne(text));
  }
  if (typeof file !== "string") {
    return fail("--l2-adapter", `an adapter in JSON, like ${EXAMPLE}, or --l2-config`, "nothing");
  }
  return await readList(file);
}

function parseOne(text: string | boolean): L2Config {
  let value: unknown;
  try {
    value = JSON.parse(String(text));
  } catch (error) {
    // The engine's message quotes the text, in which there may be a password.
    const { length } = String(text);
    const place = Number(/at position (\d+)/.exec((error as Error).message)?.[1] ?? length);
    const received = place < length
      ? `text of which character ${place + 1} cannot be JSON`
      : "text that ends too early";
    return fail("--l2-adapter", `JSON in single quotes, like '${EXAMPLE}'`, received);
  }
  return isConfig(value)
    ? value
    : fail("--l2-adapter", `an object with a text "type", like ${EXAMPLE}`, kindOf(value));
}

async function readList(file: string): Promise<readonly L2Config[]> {
  const text = await readText(file);
  const { parse, printParseErrorCode } = await import("jsonc-parser");
  const errors: ParseError[] = [];
  const list: unknown = parse(text, errors, { allowTrailingComma: true });
  const [first] = errors;
  if (first !== undefined) {
    const line = text.slice(0, first.offset).split("\n").length;
    fail(file, "JSON or JSONC", `${printParseErrorCode(first.error)} in line ${line}`);
  }
  const expected = `a list of adapters, like [${EXAMPLE}]`;
  if (!Array.isArray(list)) {
    return fail(file, expected, isConfig(list) ? "one adapter outside of a list" : kindOf(list));
  }
  if (list.length === 0) fail(file, expected, "an empty list");
  return list.map((config: unknown, i) =>
    isConfig(config)
      ? config
      : fail(`${file}: adapter ${i + 1}`, 'an object with a text "type"', kindOf(config))
  );
}

async function readText(file: string): Promise<string> {
  const unmet = unmetPath(file);
  if (unmet !== undefined) fail("--l2-config", unmet, file);
  try {
    return await Deno.readTextFile(file);
  } catch (cause) {
    const { message } = cause as Error;
    return fail("--l2-config", "a file that can be read", message, cause);
  }
}

function isConfig(value: unknown): value is L2Config {
  return typeof value === "object" && value !== null &&
    typeof (value as { type?: unknown }).type === "string";
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "an object without it" : `a ${typeof value}`;
}

function fail(key: string, expected: string, received: unknown, cause?: unknown): never {
  throw new ConfigError({ adapter: "kvtier", key, expected, received, cause });
}
