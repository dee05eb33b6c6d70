import type { ArgsDef, CommandDef } from "citty";
import type { ObjectKey } from "../keys/object_key.ts";
import { ConfigError } from "../l2/adapter_error.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { L2Config } from "../tiering/adapter_manager.ts";
import { l2Args, readL2Config } from "./l2_config.ts";
import { openAdapter } from "./open_adapter.ts";
import { print, userCommand } from "./output.ts";

const DAY_MS = 86_400_000;
const GIB = 2 ** 30;
/** Objects that are removed with one call. */
const REMOVAL_BATCH = 256;

interface ModelObjects {
  keys: ObjectKey[];
  bytes: number;
  usedAt: number;
}

/** Which objects are meant, and what becomes of them. */
interface Choice {
  readonly unusedDays: number | undefined;
  readonly isRemoving: boolean;
  readonly modelToRemove: string | undefined;
}

/** `kvtier models`: what adapters hold of each model, and how to be rid of it. */
export const modelsCommand: CommandDef<ArgsDef> = userCommand({
  meta: {
    name: "models",
    description: "List the models that adapters hold objects of, or remove those of some",
  },
  args: {
    ...l2Args,
    "unused-days": {
      type: "string",
      valueHint: "N",
      description: "Only models of which nothing was used for so many days",
    },
    remove: {
      type: "string",
      valueHint: "MODEL",
      description: "Remove all objects of this model",
    },
    "remove-unused": {
      type: "boolean",
      default: false,
      description: "Remove all objects of the models that --unused-days selects",
    },
  },
  run: async ({ args, rawArgs }) => {
    const unusedDays = daysIn(args["unused-days"]);
    const isRemoving = args["remove-unused"] === true;
    if (isRemoving && unusedDays === undefined) {
      throw new ConfigError({
        adapter: "kvtier models",
        key: "--remove-unused",
        expected: "--unused-days with it",
        received: "nothing",
      });
    }
    const modelToRemove = typeof args.remove === "string" ? args.remove : undefined;
    const configs = await readL2Config(rawArgs);
    for (const config of configs) {
      if (configs.length > 1) print(`Adapter ${config.type}:`);
      await showModels(config, { unusedDays, isRemoving, modelToRemove });
    }
  },
});

async function showModels(config: L2Config, choice: Choice): Promise<void> {
  const { unusedDays, isRemoving, modelToRemove } = choice;
  await using adapter = await openAdapter(config);
  const models = await modelsIn(adapter.guard);
  const before = Date.now() - (unusedDays ?? 0) * DAY_MS;
  const chosen = [...models].filter(([, { usedAt }]) =>
    unusedDays === undefined || usedAt < before
  );
  for (const [model, { keys, bytes, usedAt }] of chosen.sort(byUse)) {
    const used = usedAt === 0 ? "" : `, last used ${new Date(usedAt).toISOString()}`;
    print(`${model}: ${keys.length} objects, ${(bytes / GIB).toFixed(3)} GiB${used}`);
  }
  if (chosen.length === 0) print("No models");
  const doomed = isRemoving ? chosen : [...models].filter(([model]) => model === modelToRemove);
  for (const [model, { keys }] of doomed) {
    print(`${model}: removed ${await remove(adapter.guard, keys)} of ${keys.length} objects`);
  }
  if (modelToRemove !== undefined && doomed.length === 0 && !isRemoving) {
    print(`${modelToRemove}: there are no objects of this model`);
  }
}

function byUse(a: [string, ModelObjects], b: [string, ModelObjects]): number {
  return a[1].usedAt - b[1].usedAt;
}

function daysIn(text: unknown): number | undefined {
  if (text === undefined) return undefined;
  const days = Number(text);
  if (typeof text === "string" && text.trim() !== "" && days >= 0) return days;
  throw new ConfigError({
    adapter: "kvtier models",
    key: "--unused-days",
    expected: "a number of days",
    received: text,
  });
}

async function modelsIn(guard: AdapterGuard): Promise<Map<string, ModelObjects>> {
  if (!guard.canList) {
    const expected = "an adapter that can list its objects";
    throw new ConfigError({ adapter: "kvtier models", expected, received: guard.type });
  }
  const models = new Map<string, ModelObjects>();
  const onIncomplete = (): void => {
    print(`Incomplete: ${guard.reportStatus().lastError ?? "the adapter does not answer"}`);
  };
  for await (const { key, byteLength, usedAt = 0 } of guard.list({ onIncomplete })) {
    const known = models.get(key.model) ?? { keys: [], bytes: 0, usedAt: 0 };
    known.keys.push(key);
    known.bytes += byteLength;
    known.usedAt = Math.max(known.usedAt, usedAt);
    models.set(key.model, known);
  }
  return models;
}

async function remove(guard: AdapterGuard, keys: readonly ObjectKey[]): Promise<number> {
  let removed = 0;
  for (let start = 0; start < keys.length; start += REMOVAL_BATCH) {
    const { deleted } = await guard.delete(keys.slice(start, start + REMOVAL_BATCH));
    removed += deleted.popcount();
  }
  return removed;
}
