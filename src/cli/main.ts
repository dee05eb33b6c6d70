/**
 * The command line: `deno run -A jsr:@kvtier/kvtier/cli --help`.
 *
 * @module
 */
import packageConfig from "../../deno.json" with { type: "json" };
import { adaptersCommand } from "./adapters.ts";
import { checkCommand } from "./check.ts";
import { type CommandGroup, EXIT, runCommand } from "./command.ts";
import { modelsCommand } from "./models.ts";
import { newCommand } from "./new_adapter.ts";
import { print } from "./output.ts";

export { readL2Config } from "./l2_config.ts";
export type { L2Config } from "../l2/adapter_config.ts";

const kvtier: CommandGroup = {
  description: "Tiered KV cache for LLM inference on WebGPU",
  commands: {
    adapters: adaptersCommand,
    check: checkCommand,
    models: modelsCommand,
    new: newCommand,
  },
};

/**
 * Runs the command that the arguments name. Sets `Deno.exitCode` to 0 for success, 1 for a negative
 * result or a failed operation, and 2 for wrong usage.
 *
 * Requires `--allow-read` permission for the directories that the arguments name, `--allow-write`
 * for `new`, and the permissions of the adapters. `--help` requires none.
 *
 * @param args Arguments after the program name.
 */
export async function main(args: string[]): Promise<void> {
  const [first, ...rest] = args;
  const asksForVersion = (first === "--version" || first === "-v") && rest.length === 0;
  if (asksForVersion) print(packageConfig.version);
  Deno.exitCode = asksForVersion ? EXIT.success : await runCommand("kvtier", kvtier, args);
}

if (import.meta.main) await main(Deno.args);
