import type { AdapterCapabilities, L2AdapterModule } from "../adapter/contract.ts";
import { adapterHelp, describeField } from "../adapter/config.ts";
import type { LoadedSource } from "../l2/adapter_registry.ts";
import type { CliCommand } from "./command.ts";
import { placesArgs } from "./l2_config.ts";
import { registryFor } from "./stores.ts";

/** `kvtier adapters [TYPE]`: lists adapter types with their configuration keys. */
export const adaptersCommand: CliCommand = {
  description: "List adapter types with their configuration keys",
  details: [
    "Also says where a type was found, and which modules could not be imported. The exit code is 1 if there are such modules.",
  ],
  positional: { name: "TYPE", description: "Show only this type" },
  options: placesArgs,
  permissions: ["--allow-read for --adapters-dir, otherwise none"],
  examples: ["adapters", "adapters fs", "adapters --adapters-dir ./my-adapters --json"],
  run: async (args, { out }) => {
    const { positional: type } = args;
    const registry = await registryFor(args);
    if (type !== undefined) {
      const module = await registry.resolve(type);
      out.print(describe(module));
      return out.json({ adapters: [inJson(module)] });
    }
    const { loaded, failed } = await registry.list();
    out.print(loaded.map(inWords).join("\n\n"));
    for (const { origin, reason } of failed) {
      out.print(`\nCannot be used: ${origin}: ${reason}`);
    }
    out.json({
      adapters: loaded.map(({ module, origin }) => ({ ...inJson(module), origin })),
      failed: failed.map(({ name, origin, reason }) => ({ name, origin, reason: String(reason) })),
    });
    return failed.length === 0;
  },
};

function inWords({ module, origin }: LoadedSource): string {
  return `${describe(module)}\n  From: ${origin}`;
}

function describe(module: L2AdapterModule): string {
  const { capabilities } = module;
  const help = adapterHelp(module);
  return capabilities === undefined ? help : `${help}\n  Promises: ${promisesOf(capabilities)}`;
}

function inJson({ type, summary, config, capabilities }: L2AdapterModule) {
  const options = Object.entries(config).map(([key, field]) => ({
    key,
    type: field.type === "object" ? "object" : describeField(field),
    isRequired: field.required === true,
    default: field.default,
    help: field.help,
  }));
  return { type, summary, options, capabilities };
}

/** Describes capabilities in words. */
export function promisesOf({ durable, shared, evicts }: AdapterCapabilities): string {
  return [
    `objects ${durable ? "survive" : "end with"} the process`,
    `${shared ? "other processes see them" : "no other process sees them"}`,
    ...evicts ? ["it evicts by itself"] : [],
  ].join(", ");
}
