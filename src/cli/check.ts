import { promisesOf } from "./adapters.ts";
import type { CliCommand } from "./command.ts";
import { l2Args, readL2Config } from "./l2_config.ts";
import { ADAPTER_PERMISSIONS } from "./permissions.ts";
import { type RoundTrip, roundTrip } from "./round_trip.ts";
import { openStore } from "./stores.ts";

/** `kvtier check`: tests whether adapters work as configured. */
export const checkCommand: CliCommand = {
  description: "Test adapters: store, look up, load, verify and remove an object of 1 MiB",
  details: ["A part of doctor."],
  options: l2Args,
  permissions: ADAPTER_PERMISSIONS,
  examples: [`check --l2-adapter '{"type":"fs","base_path":"./kv-cache"}'`],
  run: async (args, context) => {
    const { out } = context;
    const adapters: Record<string, unknown>[] = [];
    for (const config of await readL2Config(args.raw)) {
      const { type } = config;
      try {
        await using adapter = await openStore(args, context, config, { canCreate: true });
        const { guard } = adapter;
        const trip = await roundTrip(guard);
        out.print(`${type}: works: ${inWords(trip)}; ${promisesOf(guard.capabilities)}`);
        adapters.push({ type, works: true, ...trip });
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        out.print(`${type}: does not work: ${error.message}`);
        adapters.push({ type, works: false, error: error.message });
      }
    }
    out.json({ adapters });
    return adapters.every(({ works }) => works);
  },
};

function inWords({ storeMs, lookupMs, loadMs, isRemoved }: RoundTrip): string {
  const [stored, found, loaded] = [storeMs, lookupMs, loadMs].map((ms) => ms.toFixed(1));
  const times = `stored in ${stored} ms, found in ${found} ms, loaded in ${loaded} ms`;
  return isRemoved ? times : `${times}, but not removed`;
}
