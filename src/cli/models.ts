import { type ArgsDef, type CommandDef, defineCommand } from "citty";
import type { ObjectKey } from "../keys/object_key.ts";
import { ConfigError } from "../l2/adapter_error.ts";
import { AdapterGuard, DEFAULT_ADAPTER_TIMEOUTS } from "../l2/adapter_guard.ts";
import { systemClock } from "../runtime/clock.ts";
import { checkConfig, type L2Config } from "../tiering/adapter_manager.ts";
import { openAdapterRegistry } from "../tiered_cache.ts";
import { print, runForUser } from "./output.ts";

const DAY_MS = 86_400_000;
const GIB = 2 ** 30;
/** Objects that are removed with one call. */
const REMOVAL_BATCH = 256;

interface ModelObjects {
  keys: ObjectKey[];
  bytes: number;
  usedAt: number;
}

/** `kvtier models`: what an adapter holds of each model, and how to be rid of it. */
export const modelsCommand: CommandDef<ArgsDef> = defineCommand<ArgsDef>({
  meta: {
    name: "models",
    description: "List the models an adapter holds objects of, or remove those of some",
  },
  args: {
    "l2-adapter": {
      type: "string",
      required: true,
      valueHint: "JSON",
      description: 'The adapter: {"type":"fs","base_path":"/data/kv"}',
    },
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
  run: ({ args }) =>
    runForUser(async () => {
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
      await using adapter = await openAdapter(args["l2-adapter"]);
      const models = await modelsIn(adapter.guard);
      const before = Date.now() - (unusedDays ?? 0) * DAY_MS;
      const chosen = [...models].filter(([, { usedAt }]) =>
        unusedDays === undefined || usedAt < before
      );
      for (const [model, { keys, bytes, usedAt }] of chosen.sort(byUse)) {
        const used = usedAt === 0 ? "" : `, last used ${new Date(usedAt).toISOString()}`;
        const size = `${(bytes / GIB).toFixed(3)} GiB`;
        print(`${model}: ${keys.length} objects, ${size}${used}`);
      }
      if (chosen.length === 0) print("No models");
      const doomed = isRemoving ? chosen : [...models].filter(([model]) => model === args.remove);
      for (const [model, { keys }] of doomed) {
        print(`${model}: removed ${await remove(adapter.guard, keys)} of ${keys.length} objects`);
      }
      if (typeof args.remove === "string" && doomed.length === 0 && !isRemoving) {
        print(`${args.remove}: there are no objects of this model`);
      }
    }),
});

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

/** Opens the adapter that a configuration in JSON describes. */
async function openAdapter(json: unknown): Promise<{ guard: AdapterGuard } & AsyncDisposable> {
  const { module, values } = await checkConfig(await openAdapterRegistry({}), parseConfig(json));
  const closing = new AbortController();
  const opened: { guard?: AdapterGuard } = {};
  const adapter = await module.create(values, {
    clock: systemClock,
    signal: closing.signal,
    l1Memory: { type: "host", maxObjectBytes: 2 ** 31, alignmentBytes: 256 },
    onError: (error) => opened.guard?.reportError(error),
  });
  const { type } = module;
  const timeouts = DEFAULT_ADAPTER_TIMEOUTS;
  const guard = new AdapterGuard(adapter, { id: 0, type, clock: systemClock, timeouts });
  opened.guard = guard;
  return { guard, [Symbol.asyncDispose]: () => guard.close() };
}

function parseConfig(json: unknown): L2Config {
  try {
    return JSON.parse(String(json)) as L2Config;
  } catch (cause) {
    throw new ConfigError({
      adapter: "kvtier models",
      key: "--l2-adapter",
      expected: 'JSON, like {"type":"fs","base_path":"/data/kv"}',
      received: json,
      cause,
    });
  }
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
