import { parseArgs } from "node:util";
import { ConfigError, failFor } from "../base/config_error.ts";
import { AdapterError } from "../adapter/errors.ts";
import { nearestName } from "../base/options.ts";
import { print, printError } from "./output.ts";

/** One option of a command. */
export interface OptionDef {
  /** `string` takes a value, `boolean` does not. */
  readonly type: "string" | "boolean";
  /** Description shown in help. */
  readonly description: string;
  /** Placeholder of the value in help. @default {"VALUE"} */
  readonly valueHint?: string;
  /** Default value. */
  readonly default?: string;
  /** Whether the option may be repeated. */
  readonly multiple?: boolean;
}

/** Parsed arguments of a command. */
export interface CommandArgs {
  /** The positional argument, if given. */
  readonly positional: string | undefined;
  /** Values of string options that were given or have a default. */
  readonly values: Readonly<Record<string, string | undefined>>;
  /** Boolean options that were given. */
  readonly flags: ReadonlySet<string>;
  /** All arguments, unparsed. */
  readonly raw: readonly string[];
}

/** An executable command. */
export interface CliCommand {
  /** Description shown in help. */
  readonly description: string;
  /** Options by name. */
  readonly options: Readonly<Record<string, OptionDef>>;
  /** The positional argument, if the command takes one. */
  readonly positional?: { readonly name: string; readonly description: string };
  /** Runs the command. `false` stands for a negative result: exit code 1. */
  readonly run: (args: CommandArgs) => Promise<boolean | void>;
}

/** A command with subcommands. */
export interface CommandGroup {
  /** Description shown in help. */
  readonly description: string;
  /** Subcommands by name. */
  readonly commands: Readonly<Record<string, CliCommand | CommandGroup>>;
}

/** Exit codes: success, a negative result or failed operation, wrong usage. */
export const EXIT = { success: 0, failure: 1, usage: 2 } as const;

/**
 * Runs the command that the arguments name. Wrong usage and adapter errors are printed as a
 * sentence, without a stack trace.
 *
 * @param name Name of the program in messages.
 * @returns The exit code.
 */
export async function runCommand(
  name: string,
  command: CliCommand | CommandGroup,
  args: readonly string[],
): Promise<number> {
  if ("commands" in command) return await runGroup(name, command, args);
  if (asksForHelp(args)) {
    print(helpOf(name, command));
    return EXIT.success;
  }
  try {
    const isSuccess = await command.run(parse(name, command, args)) !== false;
    return isSuccess ? EXIT.success : EXIT.failure;
  } catch (error) {
    const isUsage = error instanceof ConfigError;
    if (!isUsage && !(error instanceof AdapterError)) throw error;
    printError(error.message);
    return isUsage ? EXIT.usage : EXIT.failure;
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
    return EXIT.success;
  }
  const nearest = first === undefined ? undefined : nearestName(first, known);
  const hint = nearest === undefined ? `one of ${known.join(", ")}` : `did you mean ${nearest}?`;
  printError(first === undefined ? helpOf(name, group) : `${name}: expected a command: ${hint}`);
  return EXIT.usage;
}

function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  return args.slice(0, end < 0 ? undefined : end).some((arg) => arg === "--help" || arg === "-h");
}

function parse(name: string, command: CliCommand, raw: readonly string[]): CommandArgs {
  const { options, positional } = command;
  const { tokens } = parseArgs({ args: [...raw], strict: false, tokens: true, options });
  const values: Record<string, string | undefined> = {};
  const flags = new Set<string>();
  const given: string[] = [];
  for (const [option, def] of Object.entries(options)) {
    if (def.default !== undefined) values[option] = def.default;
  }
  const refuse = failFor(name);
  const seen = new Set<string>();
  for (const token of tokens) {
    if (token.kind === "positional") given.push(token.value);
    if (token.kind !== "option") continue;
    const { name: option, rawName, value } = token;
    const def = Object.hasOwn(options, option) ? options[option] : undefined;
    if (def === undefined) {
      const known = Object.keys(options).map((each) => `--${each}`);
      const all = known.length === 0 ? "no options" : `one of ${known.join(", ")}`;
      const expected = nearestName(rawName, known) ?? all;
      throw new ConfigError({ subject: name, expected, received: rawName });
    }
    if (seen.has(option) && !def.multiple) refuse(rawName, "it once", "it twice");
    seen.add(option);
    if (def.type === "boolean") {
      if (value !== undefined) refuse(rawName, "no value", "one");
      flags.add(option);
    } else {
      // An argument that looks like an option is not taken as a value.
      const isMissing = value === undefined || value === "" ||
        (!token.inlineValue && value.startsWith("--"));
      if (isMissing) refuse(rawName, `a value: ${def.valueHint ?? "VALUE"}`, "nothing");
      values[option] = value;
    }
  }
  const allowed = positional === undefined ? 0 : 1;
  if (given.length > allowed) {
    const expected = positional === undefined ? "no arguments" : `one ${positional.name}`;
    refuse("arguments", expected, String(given.length));
  }
  return { positional: given[0], values, flags, raw };
}

function helpOf(name: string, command: CliCommand | CommandGroup): string {
  const lines = [command.description, ""];
  if ("commands" in command) {
    const rows = Object.entries(command.commands).map(([each, { description }]) => [
      each,
      description,
    ]);
    lines.push(`Usage: ${name} COMMAND`, "", ...columns(rows), "");
    lines.push(`Run ${name} COMMAND --help for the options of a command.`);
    return lines.join("\n");
  }
  const { options, positional } = command;
  const rows = Object.entries(options).map(([option, def]) => [
    def.type === "boolean" ? `--${option}` : `--${option} ${def.valueHint ?? "VALUE"}`,
    def.default === undefined ? def.description : `${def.description} (default ${def.default})`,
  ]);
  if (positional !== undefined) rows.unshift([positional.name, positional.description]);
  const argument = positional === undefined ? "" : ` [${positional.name}]`;
  lines.push(`Usage: ${name}${argument} [OPTIONS]`, "", ...columns(rows));
  return lines.join("\n");
}

/** Lays out rows of two cells. */
function columns(rows: readonly (readonly string[])[]): string[] {
  const width = Math.max(0, ...rows.map(([left = ""]) => left.length));
  return rows.map(([left = "", right = ""]) => `  ${left.padEnd(width)}  ${right}`);
}
