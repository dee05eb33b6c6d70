import type { ArgsDef, CommandDef } from "citty";
import type { L2AdapterModule } from "../l2/adapter.ts";
import { adapterHelp } from "../l2/adapter_config.ts";
import { promisesOf } from "../l2/adapter_summary.ts";
import { openAdapterRegistry } from "../cache_wiring.ts";
import { print, userCommand } from "./output.ts";

/** `kvtier adapters [TYPE]`: which adapters there are, and what they can be told. */
export const adaptersCommand: CommandDef<ArgsDef> = userCommand({
  meta: { name: "adapters", description: "List adapter types with their configuration keys" },
  args: {
    type: { type: "positional", required: false, description: "Show only this type" },
    "adapters-dir": {
      type: "string",
      valueHint: "DIR",
      description: "Directory of adapter modules beside those of this package",
    },
  },
  run: async ({ args }) => {
    const { type, "adapters-dir": adaptersDir } = args;
    const registry = await openAdapterRegistry(
      typeof adaptersDir === "string" ? { adaptersDir } : {},
    );
    if (typeof type === "string") return print(describe(await registry.resolve(type)));
    const { loaded, failed } = await registry.list();
    print(loaded.map(({ module }) => describe(module)).join("\n\n"));
    for (const { origin, reason } of failed) print(`\nCannot be used: ${origin}: ${reason}`);
  },
});

function describe(module: L2AdapterModule): string {
  const { capabilities } = module;
  const help = adapterHelp(module);
  return capabilities === undefined ? help : `${help}\n  Promises: ${promisesOf(capabilities)}`;
}
