import { failFor } from "../base/config_error.ts";
import { GIB } from "../base/units.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { CliCommand, CommandContext } from "./command.ts";
import { l2Args } from "./l2_config.ts";
import { ObjectGroups, type ObjectTotals } from "./object_groups.ts";
import { ALL_OBJECTS, ChosenObjects } from "./objects.ts";
import { ADAPTER_PERMISSIONS } from "./permissions.ts";
import { dateOf, DAY_MS } from "./quantities.ts";
import { BatchRemoval } from "./removal.ts";
import { checkCanList, forEachStore, type StoreReport } from "./stores.ts";

const fail = failFor("kvtier models");

/** Selects models to show and to remove. */
interface Choice {
  readonly unusedDays: number | undefined;
  readonly isRemoving: boolean;
  readonly modelToRemove: string | undefined;
}

/** `kvtier models`: lists the models whose objects are stored, and removes models. */
export const modelsCommand: CliCommand = {
  description: "List the models whose objects adapters store, or remove models",
  details: ["The same as stat --by model, gc --unused-models, and forget --model."],
  options: {
    ...l2Args,
    "unused-days": {
      type: "string",
      valueHint: "N",
      description: "Show only models not used for N days",
    },
    remove: {
      type: "string",
      valueHint: "MODEL",
      description: "Remove all objects of this model",
    },
    "remove-unused": {
      type: "boolean",
      description: "Remove all objects of the models selected by --unused-days",
    },
  },
  permissions: ADAPTER_PERMISSIONS,
  examples: [
    `models --l2-adapter '{"type":"fs","base_path":"./kv-cache"}'`,
    "models --l2-config l2.jsonc --unused-days 30 --remove-unused",
  ],
  run: async (args, context) => {
    const { "unused-days": days, remove: modelToRemove } = args.values;
    const unusedDays = daysIn(days);
    const isRemoving = args.flags.has("remove-unused");
    if (isRemoving && unusedDays === undefined) {
      fail("--remove-unused", "to be combined with --unused-days", "--remove-unused alone");
    }
    const choice = { unusedDays, isRemoving, modelToRemove };
    const removes = isRemoving || modelToRemove !== undefined;
    const show = (guard: AdapterGuard) => showModels(guard, choice, context);
    return await forEachStore(args, context, show, { removes });
  },
};

/** Shows and removes models; fails if a model could not be listed, found or removed. */
async function showModels(
  guard: AdapterGuard,
  { unusedDays, isRemoving, modelToRemove }: Choice,
  { out, host: { signal } }: CommandContext,
): Promise<StoreReport> {
  checkCanList("models", guard);
  const groups = new ObjectGroups();
  const listing = new ChosenObjects(guard, ALL_OBJECTS, signal);
  for await (const object of listing) groups.add(object.key.model, object);
  for (const problem of listing.problems) out.print(`Incomplete: ${problem}`);
  const before = Date.now() - (unusedDays ?? 0) * DAY_MS;
  const chosen = groups.all.filter(([, { usedAt }]) => unusedDays === undefined || usedAt < before);
  for (const [model, { objects, bytes, usedAt }] of chosen.sort(byUse)) {
    const used = usedAt === 0 ? "" : `, last used ${dateOf(usedAt)}`;
    out.print(`${model}: ${objects} objects, ${(bytes / GIB).toFixed(3)} GiB${used}`);
  }
  if (chosen.length === 0) out.print("No models");
  const doomed = isRemoving ? chosen : groups.all.filter(([model]) => model === modelToRemove);
  let isSuccess = listing.isComplete;
  const removed: { model: string; objects: number; bytes: number }[] = [];
  for (const [model, totals] of doomed) {
    const { counts } = await removeModel(guard, model, signal);
    isSuccess &&= counts.objects >= totals.objects;
    removed.push({ model, objects: counts.objects, bytes: counts.bytes });
    out.print(`${model}: removed ${counts.objects} of ${totals.objects} objects`);
  }
  if (modelToRemove !== undefined && doomed.length === 0 && !isRemoving) {
    out.print(`${modelToRemove}: there are no objects of this model`);
    isSuccess = false;
  }
  const models = chosen.map(([model, totals]) => ({ model, ...totals }));
  return { isSuccess, fields: { models, removed, problems: listing.problems } };
}

async function removeModel(
  guard: AdapterGuard,
  model: string,
  signal: AbortSignal,
): Promise<BatchRemoval> {
  const removal = new BatchRemoval(guard);
  const filter = { model, matches: () => true };
  for await (const object of new ChosenObjects(guard, filter, signal)) {
    if (object.key.model === model) await removal.add(object);
  }
  await removal.flush();
  return removal;
}

function byUse(a: [string, ObjectTotals], b: [string, ObjectTotals]): number {
  return a[1].usedAt - b[1].usedAt;
}

function daysIn(text: unknown): number | undefined {
  if (text === undefined) return undefined;
  const days = Number(text);
  if (typeof text === "string" && text.trim() !== "" && days >= 0) return days;
  return fail("--unused-days", "a number of days", text);
}
