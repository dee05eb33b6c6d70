/**
 * The command line: `deno run -A jsr:@kvtier/kvtier/cli --help`.
 *
 * @module
 */
import { defineCommand, runMain } from "citty";
import packageConfig from "../../deno.json" with { type: "json" };
import { adaptersCommand } from "./adapters.ts";
import { checkCommand } from "./check.ts";
import { modelsCommand } from "./models.ts";
import { newCommand } from "./new_adapter.ts";

export { readL2Config } from "./l2_config.ts";
export type { L2Config } from "../tiering/adapter_manager.ts";

/**
 * Runs the command that the arguments name.
 *
 * Requires `--allow-read` permission for the directories that the arguments name, and
 * `--allow-write` for `new`.
 *
 * @param args The arguments behind the program's name.
 */
export async function main(args: string[]): Promise<void> {
  const command = defineCommand({
    meta: {
      name: "kvtier",
      version: packageConfig.version,
      description: "Tiered KV cache for LLM inference on WebGPU",
    },
    subCommands: {
      adapters: adaptersCommand,
      check: checkCommand,
      models: modelsCommand,
      new: newCommand,
    },
  });
  await runMain(command, { rawArgs: args });
}

if (import.meta.main) await main(Deno.args);
