import type { AdapterCapabilities, L2AdapterModule } from "../adapter/contract.ts";
import { adapterHelp } from "../adapter/config.ts";
import type { CliCommand } from "./command.ts";
import { placesArgs, registryFor } from "./l2_config.ts";
import { print } from "./output.ts";

/** `kvtier adapters [TYPE]`: lists adapter types with their configuration keys. */
export const adaptersCommand: CliCommand = {
  description: "List adapter types with their configuration keys",
  positional: { name: "TYPE", description: "Show only this type" },
  options: placesArgs,
  run: async (args) => {
    const { positional: type } = args;
    const registry = await registryFor(args);
    if (type !== undefined) return print(describe(await registry.resolve(type)));
    const { loaded, failed } = await registry.list();
    print(loaded.map(({ module }) => describe(module)).join("\n\n"));
    for (const { origin, reason } of failed) print(`\nCannot be used: ${origin}: ${reason}`);
  },
};

function describe(module: L2AdapterModule): string {
  const { capabilities } = module;
  const help = adapterHelp(module);
  return capabilities === undefined ? help : `${help}\n  Promises: ${promisesOf(capabilities)}`;
}

/** Describes capabilities in words. */
export function promisesOf({ durable, shared, evicts }: AdapterCapabilities): string {
  return [
    `objects ${durable ? "survive" : "end with"} the process`,
    `${shared ? "other processes see them" : "no other process sees them"}`,
    ...evicts ? ["it evicts by itself"] : [],
  ].join(", ");
}
