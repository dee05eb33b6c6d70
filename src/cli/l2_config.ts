import { parseArgs } from "node:util";
import type { ParseError } from "jsonc-parser";
import { failFor } from "../base/config_error.ts";
import { unmetPath } from "../adapter/host_path.ts";
import type { L2Config } from "../l2/adapter_config.ts";
import type { OptionDef } from "./command.ts";

const fail = failFor("kvtier");

const EXAMPLE = '{"type":"fs","base_path":"/data/kv"}';

/** Option for the directory of additional adapter modules. */
export const placesArgs = {
  "adapters-dir": {
    type: "string",
    valueHint: "DIR",
    description: "Directory of additional adapter modules",
  },
} as const satisfies Record<string, OptionDef>;

/** Options of commands that open adapters. */
export const l2Args = {
  "l2-adapter": {
    type: "string",
    multiple: true,
    valueHint: "JSON",
    description: `Adapter configuration, such as ${EXAMPLE}; repeat it in order of preference`,
  },
  "l2-config": {
    type: "string",
    valueHint: "FILE",
    description: "Alternatively, a JSON or JSONC file with an array of adapters, preferred first",
  },
  ...placesArgs,
} as const satisfies Record<string, OptionDef>;

/**
 * Reads adapter configurations from a program's arguments, in the form of the `l2` option of the
 * cache: from each `--l2-adapter JSON`, or from the array in the file of `--l2-config FILE`. Other
 * arguments are ignored.
 *
 * Requires `--allow-read` permission for that file.
 *
 * @throws {ConfigError} If the arguments name no adapter, or a configuration is not valid. The
 * message never quotes the configuration, which may contain secrets.
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
    if (file !== undefined) fail("--l2-config", "not to be combined with --l2-adapter", file);
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
    // The message of JSON.parse quotes its input, which may contain a password.
    const { length } = String(text);
    const place = Number(/at position (\d+)/.exec((error as Error).message)?.[1] ?? length);
    const received = place < length ? `invalid JSON at character ${place + 1}` : "incomplete JSON";
    return fail("--l2-adapter", `JSON in single quotes, like '${EXAMPLE}'`, received);
  }
  return isConfig(value)
    ? value
    : fail("--l2-adapter", `an object with a string "type", like ${EXAMPLE}`, kindOf(value));
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
  const expected = `an array of adapters, like [${EXAMPLE}]`;
  if (!Array.isArray(list)) {
    return fail(file, expected, isConfig(list) ? "one adapter outside an array" : kindOf(list));
  }
  if (list.length === 0) fail(file, expected, "an empty array");
  return list.map((config: unknown, i) =>
    isConfig(config)
      ? config
      : fail(`${file}: adapter ${i + 1}`, 'an object with a string "type"', kindOf(config))
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
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object without it" : `a ${typeof value}`;
}
