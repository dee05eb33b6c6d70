import { parseArgs } from "node:util";
import { AdapterError, ConfigError } from "../l2/adapter_error.ts";
import { nearestName } from "../runtime/options.ts";
import { print, printError } from "./output.ts";

/** One option of a command. */
export interface OptionDef {
  /** Whether it has a value. */
  readonly type: "string" | "boolean";
  /** What it does. */
  readonly description: string;
  /** What its value is, in help. */
  readonly valueHint?: string;
  /** Value if it is left out. */
  readonly default?: string;
  /** Whether it may be given more than once. */
  readonly multiple?: boolean;
}

/** What a command was called with. */
export interface CommandArgs {
  /** The positional argument, if it takes one. */
  readonly positional: string | undefined;
  /** The value of each option with one that was given, or has a default. */
  readonly values: Readonly<Record<string, string | undefined>>;
  /** The options without a value that were given. */
  readonly flags: ReadonlySet<string>;
  /** All arguments as they were given. */
  readonly raw: readonly string[];
}

/** A command that does something. */
export interface Command {
  /** One sentence. */
  readonly description: string;
  /** Its options by name. */
  readonly options: Readonly<Record<string, OptionDef>>;
  /** The positional argument that it takes; none unless this is given. */
  readonly positional?: { readonly name: string; readonly description: string };
  /** Does its work; `false` if the answer is no, which is exit code 1. */
  readonly run: (args: CommandArgs) => Promise<boolean | void>;
}

/** Commands by name. */
export interface CommandGroup {
  /** One sentence. */
  readonly description: string;
  /** Its commands. */
  readonly commands: Readonly<Record<string, Command | CommandGroup>>;
}

/** Exit codes: it did what was asked; it ran, and the answer is no; it was used wrongly. */
export const EXIT = { yes: 0, no: 1, misuse: 2 } as const;

/**
 * Runs the command that the arguments name; mistakes get a sentence, and no stack trace.
 *
 * @param name What the program is called.
 * @returns The exit code.
 */
export async function runCommand(
  name: string,
  command: Command | CommandGroup,
  args: readonly string[],
): Promise<number> {
  if ("commands" in command) return await runGroup(name, command, args);
  if (asksForHelp(args)) {
    print(helpOf(name, command));
    return EXIT.yes;
  }
  try {
    return await command.run(parse(name, command, args)) === false ? EXIT.no : EXIT.yes;
  } catch (error) {
    if (error instanceof ConfigError) {
      printError(error.message);
      return EXIT.misuse;
    }
    if (!(error instanceof AdapterError)) throw error;
    printError(error.message);
    return EXIT.no;
  }
}

async function runGroup(
  name: string,
  group: CommandGroup,
  [first, ...rest]: readonly string[],
): Promise<number> {
  const known = Object.keys(group.commands);
  const command = known.includes(first ?? "") ? group.commands[first ?? ""] : undefined;
  if (command !== undefined) return await runCommand(`${name} ${first}`, command, rest);
  if (first !== undefined && asksForHelp([first])) {
    print(helpOf(name, group));
    return EXIT.yes;
  }
  const nearest = first === undefined ? undefined : nearestName(first, known);
  const hint = nearest === undefined ? known.join(", ") : `${nearest}?`;
  printError(
    first === undefined
      ? helpOf(name, group)
      : `${name}: expected a command, ${nearest === undefined ? "one of " : "perhaps "}${hint}`,
  );
  return EXIT.misuse;
}

function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  return args.slice(0, end < 0 ? undefined : end).some((arg) => arg === "--help" || arg === "-h");
}

function parse(name: string, command: Command, raw: readonly string[]): CommandArgs {
  const { options, positional } = command;
  const { tokens } = parseArgs({
    args: [...raw],
    strict: false,
    tokens: true,
    options: Object.fromEntries(
      Object.entries(options).map(([option, { type }]) => [option, { type }]),
    ),
  });
  const values: Record<string, string | undefined> = {};
  const flags = new Set<string>();
  const given: string[] = [];
  for (const [option, def] of Object.entries(options)) {
    if (def.default !== undefined) values[option] = def.default;
  }
  const seen = new Set<string>();
  for (const token of tokens) {
    if (token.kind === "positional") given.push(token.value);
    if (token.kind !== "option") continue;
    const { name: option, rawName, value } = token;
    const def = Object.hasOwn(options, option) ? options[option] : undefined;
    if (def === undefined) refuseOption(name, options, rawName);
    if (seen.has(option) && !def.multiple) refuse(name, rawName, "it once", "it twice");
    seen.add(option);
    if (def.type === "boolean") {
      if (value !== undefined) refuse(name, rawName, "no value", "one");
      flags.add(option);
    } else {
      // What looks like the next option is no value.
      const isMissing = value === undefined || value === "" ||
        (!token.inlineValue && value.startsWith("--"));
      if (isMissing) refuse(name, rawName, `a value: ${def.valueHint ?? "TEXT"}`, "nothing");
      values[option] = value;
    }
  }
  const allowed = positional === undefined ? 0 : 1;
  if (given.length > allowed) {
    const expected = positional === undefined ? "no arguments" : `one ${positional.name}`;
    refuse(name, "arguments", expected, `${given.length} of them`);
  }
  return { positional: given[0], values, flags, raw };
}

function refuseOption(
  adapter: string,
  options: Readonly<Record<string, OptionDef>>,
  received: string,
): never {
  const known = Object.keys(options).map((option) => `--${option}`);
  const nearest = nearestName(received, known);
  const expected = nearest ?? (known.length === 0 ? "no options" : `one of ${known.join(", ")}`);
  throw new ConfigError({ adapter, expected, received });
}

function refuse(adapter: string, key: string, expected: string, received: string): never {
  throw new ConfigError({ adapter, key, expected, received });
}

function helpOf(name: string, command: Command | CommandGroup): string {
  if ("commands" in command) {
    const rows = Object.entries(command.commands).map((
      [each, { description }],
    ): [string, string] => [
      each,
      description,
    ]);
    return [
      command.description,
      "",
      `Usage: ${name} COMMAND`,
      "",
      ...columns(rows),
      "",
      `${name} COMMAND --help says more.`,
    ].join("\n");
  }
  const { description, options, positional } = command;
  const optionRows = Object.entries(options).map(([option, def]): [string, string] => [
    def.type === "boolean" ? `--${option}` : `--${option} ${def.valueHint ?? "TEXT"}`,
    def.default === undefined ? def.description : `${def.description} (default ${def.default})`,
  ]);
  const rows: [string, string][] = positional === undefined
    ? optionRows
    : [[positional.name, positional.description], ...optionRows];
  const argument = positional === undefined ? "" : ` [${positional.name}]`;
  return [description, "", `Usage: ${name}${argument} [OPTIONS]`, "", ...columns(rows)].join("\n");
}

function columns(rows: readonly [string, string][]): string[] {
  const width = Math.max(0, ...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`);
}
