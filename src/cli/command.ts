import { parseArgs } from "node:util";
import { ConfigError, failFor } from "../base/config_error.ts";
import { AdapterError } from "../adapter/errors.ts";
import { nearestName } from "../base/options.ts";
import type { CliHost } from "./host.ts";
import { Output } from "./output.ts";

/** One option of a command. */
export interface OptionDef {
  /** `string` takes a value, `boolean` does not. */
  readonly type: "string" | "boolean";
  /** Description shown in help. */
  readonly description: string;
  /** Placeholder of the value in help; `FILE` and `DIR` are completed as paths. @default {"VALUE"} */
  readonly valueHint?: string;
  /** The possible values. */
  readonly oneOf?: readonly string[];
  /** Default value. */
  readonly default?: string;
  /** Whether the option may be repeated. */
  readonly multiple?: boolean;
  /** Whether the value may be the empty string. */
  readonly canBeEmpty?: boolean;
}

/** Parsed arguments of a command. */
export interface CommandArgs {
  /** The positional argument, if given. */
  readonly positional: string | undefined;
  /** All positional arguments; more than one only if the command allows it. */
  readonly positionals: readonly string[];
  /** Values of string options that were given or have a default. */
  readonly values: Readonly<Record<string, string | undefined>>;
  /** All values of string options that may be repeated. */
  readonly lists: Readonly<Record<string, readonly string[] | undefined>>;
  /** Boolean options that were given. */
  readonly flags: ReadonlySet<string>;
  /** All arguments, unparsed. */
  readonly raw: readonly string[];
}

/** What a command runs with. */
export interface CommandContext {
  readonly host: CliHost;
  readonly out: Output;
}

/** An executable command. */
export interface CliCommand {
  /** Description shown in help. */
  readonly description: string;
  /** What else there is to know, in paragraphs. */
  readonly details?: readonly string[];
  /** Options by name. Every command also has `--json` and `--help`. */
  readonly options: Readonly<Record<string, OptionDef>>;
  /** The positional argument, if the command takes one. */
  readonly positional?: PositionalDef;
  /** Least permissions that it needs. */
  readonly permissions: readonly string[];
  /** Arguments of calls worth knowing, as one types them. */
  readonly examples: readonly string[];
  /** Runs the command. `false` stands for a negative result: exit code 1. */
  readonly run: (args: CommandArgs, context: CommandContext) => Promise<boolean | void>;
}

/** The positional argument of a command. */
export interface PositionalDef {
  readonly name: string;
  readonly description: string;
  /** Whether there may be several. @default {false} */
  readonly isRepeated?: boolean;
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

/** Width of paragraphs in help. */
const HELP_COLUMNS = 90;

/** Options that every command has. */
export const COMMON_OPTIONS = {
  json: { type: "boolean", description: "Print one JSON document to stdout" },
  help: { type: "boolean", description: "Print this help" },
} as const satisfies Record<string, OptionDef>;

/** Ends a command that could not do its work, with a sentence and exit code 1. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}

/**
 * Runs the command that the arguments name. Wrong usage and failures are printed as a sentence,
 * without a stack trace.
 *
 * @param name Name of the program in messages.
 * @returns The exit code.
 */
export async function runCommand(
  name: string,
  command: CliCommand | CommandGroup,
  args: readonly string[],
  host: CliHost,
): Promise<number> {
  if ("commands" in command) return await runGroup(name, command, args, host);
  const plain = new Output(host, false);
  if (asksFor(args, "--help", "-h")) {
    plain.print(helpOf(name, command));
    return EXIT.success;
  }
  const out = new Output(host, asksFor(args, "--json"));
  try {
    const isSuccess = await command.run(parse(name, command, args), { host, out }) !== false;
    out.end();
    return isSuccess ? EXIT.success : EXIT.failure;
  } catch (error) {
    // The reader of a pipe has seen enough.
    if (error instanceof Deno.errors.BrokenPipe) return EXIT.success;
    const isUsage = error instanceof ConfigError || error instanceof Deno.errors.NotCapable;
    const isExpected = isUsage || error instanceof AdapterError || error instanceof CommandError ||
      (host.signal.aborted && error === host.signal.reason);
    if (!isExpected) throw error;
    const { message } = error as Error;
    out.note(message);
    out.json({ error: message });
    out.end();
    return isUsage ? EXIT.usage : EXIT.failure;
  }
}

async function runGroup(
  name: string,
  group: CommandGroup,
  args: readonly string[],
  host: CliHost,
): Promise<number> {
  const [first, ...rest] = args.filter((arg, i) => i > 0 || arg !== "--json");
  const command = first !== undefined && Object.hasOwn(group.commands, first)
    ? group.commands[first]
    : undefined;
  if (command !== undefined) return await runCommand(`${name} ${first}`, command, rest, host);
  const out = new Output(host, false);
  if (first !== undefined && asksFor([first], "--help", "-h")) {
    out.print(helpOf(name, group));
    return EXIT.success;
  }
  const known = Object.keys(group.commands);
  const nearest = first === undefined ? undefined : nearestName(first, known);
  const hint = nearest === undefined ? `one of ${known.join(", ")}` : `did you mean ${nearest}?`;
  const message = first === undefined
    ? helpOf(name, group)
    : `${name}: expected a command: ${hint}`;
  out.note(message);
  if (asksFor(args, "--json")) {
    const document = new Output(host, true);
    document.json({ error: message });
    document.end();
  }
  return EXIT.usage;
}

function asksFor(args: readonly string[], ...names: readonly string[]): boolean {
  const end = args.indexOf("--");
  return args.slice(0, end < 0 ? undefined : end).some((arg) => names.includes(arg));
}

/**
 * Parses the arguments of a command.
 *
 * @throws {ConfigError} If they are wrong.
 */
export function parse(name: string, command: CliCommand, raw: readonly string[]): CommandArgs {
  const { positional } = command;
  const options: Readonly<Record<string, OptionDef>> = { ...command.options, ...COMMON_OPTIONS };
  const { tokens } = parseArgs({ args: [...raw], strict: false, tokens: true, options });
  const values: Record<string, string | undefined> = {};
  const lists: Record<string, string[] | undefined> = {};
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
      const nearest = nearestName(rawName, known);
      const hint = nearest === undefined
        ? `one of ${known.join(", ")}`
        : `did you mean ${nearest}?`;
      const expected = `an option that it has: ${hint}`;
      throw new ConfigError({ subject: name, expected, received: rawName });
    }
    if (seen.has(option) && !def.multiple) refuse(rawName, "it once", "it twice");
    seen.add(option);
    if (def.type === "boolean") {
      if (value !== undefined) refuse(rawName, "no value", "one");
      flags.add(option);
    } else {
      // An argument that looks like an option is not taken as a value.
      const isMissing = value === undefined || (value === "" && !def.canBeEmpty) ||
        (!token.inlineValue && value.startsWith("--"));
      if (isMissing) refuse(rawName, `a value: ${def.valueHint ?? "VALUE"}`, "nothing");
      else if (def.oneOf !== undefined && !def.oneOf.includes(value)) {
        refuse(rawName, `one of ${def.oneOf.join(", ")}`, value);
      } else {
        values[option] = value;
        if (def.multiple) (lists[option] ??= []).push(value);
      }
    }
  }
  const most = positional?.isRepeated ? Infinity : 1;
  const allowed = positional === undefined ? 0 : most;
  if (given.length > allowed) {
    const expected = positional === undefined ? "no arguments" : `one ${positional.name}`;
    refuse("arguments", expected, String(given.length));
  }
  return { positional: given[0], positionals: given, values, lists, flags, raw };
}

/** The help of a command. */
export function helpOf(name: string, command: CliCommand | CommandGroup): string {
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
  const { details = [], permissions, examples } = command;
  for (const paragraph of details) lines.push(...wrapped(paragraph), "");
  lines.push(usageOf(name, command), "", ...columns(optionRows(command)), "");
  lines.push("Permissions:", ...permissions.flatMap((line) => wrapped(line, "  ")), "");
  lines.push("Examples:", ...examples.map((example) => `  ${name.split(" ")[0]} ${example}`), "");
  lines.pop();
  return lines.join("\n");
}

/** The line that shows how a command is called. */
export function usageOf(name: string, { positional }: CliCommand): string {
  const argument = positional === undefined ? "" : ` [${positional.name}]`;
  return `Usage: ${name}${argument}${positional?.isRepeated ? "…" : ""} [OPTIONS]`;
}

/** The arguments and options of a command with their descriptions. */
export function optionRows(command: CliCommand): [option: string, description: string][] {
  const { options, positional } = command;
  const rows = Object.entries<OptionDef>({ ...options, ...COMMON_OPTIONS }).map((
    [option, def],
  ): [string, string] => {
    const values = def.oneOf === undefined ? "" : `: ${def.oneOf.join(", ")}`;
    const byDefault = def.default === undefined ? "" : ` (default ${def.default})`;
    return [
      def.type === "boolean" ? `--${option}` : `--${option} ${def.valueHint ?? "VALUE"}`,
      `${def.description}${values}${byDefault}`,
    ];
  });
  if (positional !== undefined) rows.unshift([positional.name, positional.description]);
  return rows;
}

/** Lays out rows of two cells. */
function columns(rows: readonly (readonly string[])[]): string[] {
  const width = Math.max(0, ...rows.map(([left = ""]) => left.length));
  return rows.map(([left = "", right = ""]) => `  ${left.padEnd(width)}  ${right}`);
}

/** Breaks a paragraph into lines. */
function wrapped(paragraph: string, indent = ""): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of paragraph.split(" ")) {
    if (line !== "" && indent.length + line.length + word.length >= HELP_COLUMNS) {
      lines.push(indent + line);
      line = "";
    }
    line += line === "" ? word : ` ${word}`;
  }
  return [...lines, indent + line];
}
