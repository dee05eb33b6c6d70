import { parseArgs } from "node:util";
import {
  type ArgsDef,
  type CommandContext,
  type CommandDef,
  type CommandMeta,
  defineCommand,
} from "citty";
import { ConfigError } from "../l2/adapter_error.ts";

const encoder = new TextEncoder();

/** Prints a line. */
export function print(text: string): void {
  Deno.stdout.writeSync(encoder.encode(`${text}\n`));
}

/** What a command is made of. */
export interface UserCommand {
  /** The command that it belongs to; left out if that is `kvtier` itself. */
  readonly parent?: string;
  /** Name and description. */
  readonly meta: CommandMeta & { readonly name: string };
  /** Its options and positional arguments. */
  readonly args: ArgsDef;
  /** What it does. */
  readonly run: (context: CommandContext) => Promise<void>;
}

/**
 * A command for users: an option that there is not is an error, and a mistake gets a sentence and
 * exit code 2, not a stack trace.
 */
export function userCommand({ parent, meta, args, run }: UserCommand): CommandDef<ArgsDef> {
  return defineCommand<ArgsDef>({
    meta,
    args,
    run: async (context) => {
      try {
        const name = ["kvtier", ...parent === undefined ? [] : [parent], meta.name].join(" ");
        checkOptions(name, args, context.rawArgs);
        await run(context);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        Deno.stderr.writeSync(encoder.encode(`${error.message}\n`));
        Deno.exitCode = 2;
      }
    },
  });
}

function checkOptions(adapter: string, args: ArgsDef, rawArgs: readonly string[]): void {
  const options = Object.entries(args).filter(([, { type }]) => type !== "positional");
  const { tokens } = parseArgs({
    args: [...rawArgs],
    strict: false,
    tokens: true,
    options: Object.fromEntries(
      options.map(([name, { type }]) => [name, { type: type === "boolean" ? type : "string" }]),
    ),
  });
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const { name, rawName, value } = token;
    const option = options.find(([known]) => known === name)?.[1];
    if (option === undefined) {
      const known = options.map(([other]) => `--${other}`).join(", ");
      throw new ConfigError({ adapter, expected: `one of ${known}`, received: rawName });
    }
    if (option.type !== "boolean" && value === undefined) {
      const expected = `a value: ${option.valueHint ?? "TEXT"}`;
      throw new ConfigError({ adapter, key: rawName, expected, received: "nothing" });
    }
  }
}
