import { GIB } from "../base/units.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import { ConfigError, failFor } from "../base/config_error.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { CliCommand } from "./command.ts";
import { l2Args, openFor, readL2Config } from "./l2_config.ts";
import { print } from "./output.ts";

const fail = failFor("kvtier models");

const DAY_MS = 86_400_000;
/** Objects removed per call. */
const REMOVAL_BATCH = 256;

/** Configuration keys whose value is a directory of objects. */
const PATH_KEYS = ["base_path", "file_path"];

interface ModelObjects {
  keys: ObjectKey[];
  bytes: number;
  usedAt: number;
}

/** Selects models to show and to remove. */
interface Choice {
  readonly unusedDays: number | undefined;
  readonly isRemoving: boolean;
  readonly modelToRemove: string | undefined;
}

/** `kvtier models`: lists the models whose objects are stored, and removes models. */
export const modelsCommand: CliCommand = {
  description: "List the models whose objects adapters store, or remove models",
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
  run: async (args) => {
    const { "unused-days": days, remove: modelToRemove } = args.values;
    const unusedDays = daysIn(days);
    const isRemoving = args.flags.has("remove-unused");
    if (isRemoving && unusedDays === undefined) {
      fail("--remove-unused", "to be combined with --unused-days", "--remove-unused alone");
    }
    const configs = await readL2Config(args.raw);
    for (const config of configs) await checkPlaces(config);
    let isSuccess = true;
    for (const config of configs) {
      if (configs.length > 1) print(`Adapter ${config.type}:`);
      await using adapter = await openFor(args, config);
      const choice = { unusedDays, isRemoving, modelToRemove };
      isSuccess = await showModels(adapter.guard, choice) && isSuccess;
    }
    return isSuccess;
  },
};

/** Rejects paths that do not exist: the adapter would create a directory for a mistyped path. */
async function checkPlaces(config: Readonly<Record<string, unknown>>, prefix = ""): Promise<void> {
  for (const [key, value] of Object.entries(config)) {
    if (typeof value === "object" && value !== null) {
      await checkPlaces({ ...value }, `${prefix}${key}.`);
    }
    if (!PATH_KEYS.includes(key) || typeof value !== "string" || await exists(value)) continue;
    fail(prefix + key, "a directory that exists", value);
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    // Other errors, such as missing permissions, are left for the adapter to report.
    return !(error instanceof Deno.errors.NotFound);
  }
}

/** Shows and removes models; returns `false` if a model could not be listed, found or removed. */
async function showModels(guard: AdapterGuard, choice: Choice): Promise<boolean> {
  const { unusedDays, isRemoving, modelToRemove } = choice;
  const { models, isComplete } = await modelsIn(guard);
  const before = Date.now() - (unusedDays ?? 0) * DAY_MS;
  const chosen = [...models].filter(([, { usedAt }]) =>
    unusedDays === undefined || usedAt < before
  );
  for (const [model, { keys, bytes, usedAt }] of chosen.sort(byUse)) {
    const used = usedAt === 0 ? "" : `, last used ${dateOf(usedAt)}`;
    print(`${model}: ${keys.length} objects, ${(bytes / GIB).toFixed(3)} GiB${used}`);
  }
  if (chosen.length === 0) print("No models");
  let isSuccess = isComplete;
  const doomed = isRemoving ? chosen : [...models].filter(([model]) => model === modelToRemove);
  for (const [model, { keys }] of doomed) {
    const removed = await remove(guard, keys);
    if (removed < keys.length) isSuccess = false;
    print(`${model}: removed ${removed} of ${keys.length} objects`);
  }
  if (modelToRemove !== undefined && doomed.length === 0 && !isRemoving) {
    print(`${modelToRemove}: there are no objects of this model`);
    isSuccess = false;
  }
  return isSuccess;
}

/** Formats a time reported by an adapter, which may be out of range. */
function dateOf(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? "at an invalid time" : date.toISOString();
}

function byUse(a: [string, ModelObjects], b: [string, ModelObjects]): number {
  return a[1].usedAt - b[1].usedAt;
}

function daysIn(text: unknown): number | undefined {
  if (text === undefined) return undefined;
  const days = Number(text);
  if (typeof text === "string" && text.trim() !== "" && days >= 0) return days;
  return fail("--unused-days", "a number of days", text);
}

async function modelsIn(
  guard: AdapterGuard,
): Promise<{ models: Map<string, ModelObjects>; isComplete: boolean }> {
  if (!guard.canList) {
    const expected = "an adapter that supports listing";
    throw new ConfigError({ subject: "kvtier models", expected, received: guard.type });
  }
  const models = new Map<string, ModelObjects>();
  let isComplete = true;
  const onIncomplete = (): void => {
    isComplete = false;
    print(`Incomplete: ${guard.reportStatus().lastError ?? "the adapter does not respond"}`);
  };
  for await (const { key, byteLength, usedAt = 0 } of guard.list({ onIncomplete })) {
    const known = models.get(key.model) ?? { keys: [], bytes: 0, usedAt: 0 };
    known.keys.push(key);
    known.bytes += byteLength;
    known.usedAt = Math.max(known.usedAt, usedAt);
    models.set(key.model, known);
  }
  return { models, isComplete };
}

async function remove(guard: AdapterGuard, keys: readonly ObjectKey[]): Promise<number> {
  let removed = 0;
  for (let start = 0; start < keys.length; start += REMOVAL_BATCH) {
    const { done } = await guard.delete(keys.slice(start, start + REMOVAL_BATCH));
    removed += done.popcount();
  }
  return removed;
}
