/**
 * The command line: `deno run -A jsr:@kvtier/kvtier/cli --help`.
 *
 * @module
 */
import packageConfig from "../../deno.json" with { type: "json" };
import { EXIT, runCommand } from "./command.ts";
import { kvtier } from "./commands.ts";
import { processHost } from "./host.ts";
import { Output } from "./output.ts";

export { readL2Config } from "./l2_config.ts";
export type { L2Config } from "../l2/adapter_config.ts";

/**
 * Runs the command that the arguments name. Sets `Deno.exitCode` to 0 for success, 1 for a negative
 * result or a failed operation, and 2 for wrong usage.
 *
 * Requires the permissions that the help of each command names. `--help` requires none.
 *
 * @param args Arguments after the program name.
 */
export async function main(args: string[]): Promise<void> {
  const [first, ...rest] = args;
  using host = processHost();
  if ((first === "--version" || first === "-v") && rest.length === 0) {
    new Output(host, false).print(packageConfig.version);
    Deno.exitCode = EXIT.success;
  } else {
    Deno.exitCode = await runCommand("kvtier", kvtier, args, host);
  }
}

if (import.meta.main) await main(Deno.args);
