import { failFor } from "../base/config_error.ts";
import type { CommandArgs, OptionDef, PositionalDef } from "./command.ts";
import { askFor } from "./permissions.ts";
import type { TraceFile } from "../trace/trace_file.ts";

const fail = failFor("kvtier");

/** The traces that a command reads. */
export const TRACES: PositionalDef = {
  name: "TRACE",
  description: "JSONL file of requests: timestamp, input_length, output_length, hash_ids",
  isRepeated: true,
};

/** Option that limits the requests of each trace. */
export const requestsArg = {
  requests: {
    type: "string",
    valueHint: "N",
    description: "Use only the first N requests of each trace",
  },
} as const satisfies Record<string, OptionDef>;

/** The paths of the traces, which the command may read. */
export async function tracePaths(name: string, args: CommandArgs): Promise<readonly string[]> {
  const { positionals: paths } = args;
  if (paths.length === 0) failFor(name)("TRACE", "at least one file", "nothing");
  for (const path of paths) await askFor({ name: "read", path });
  return paths;
}

/** The trace in a file, which {@linkcode tracePaths} has checked. */
export function traceAt(path: string): TraceFile {
  return {
    name: path,
    async open() {
      try {
        return (await Deno.open(path)).readable;
      } catch (cause) {
        return fail("TRACE", "a file that can be read", (cause as Error).message, cause);
      }
    },
  };
}

/** A list of values between commas. */
export function listOf(option: string, text: string): string[] {
  const parts = text.split(",").map((part) => part.trim());
  if (parts.includes("")) fail(`--${option}`, "values between commas", text);
  return [...new Set(parts)];
}

/** The last part of a path. */
export function fileName(path: string): string {
  return path.split(/[/\\]/).at(-1) ?? path;
}
