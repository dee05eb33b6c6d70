import { adaptersCommand } from "./adapters.ts";
import { checkCommand } from "./check.ts";
import type { CommandGroup } from "./command.ts";
import { modelsCommand } from "./models.ts";
import { newCommand } from "./new_adapter.ts";

/** All commands. */
export const kvtier: CommandGroup = {
  description: "Tiered KV cache for LLM inference on WebGPU",
  commands: {
    adapters: adaptersCommand,
    check: checkCommand,
    models: modelsCommand,
    new: newCommand,
  },
};
