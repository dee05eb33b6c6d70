import type { ListedObject } from "../adapter/contract.ts";
import type { CliCommand } from "./command.ts";
import { l2Args } from "./l2_config.ts";
import { ObjectGroups, type ObjectTotals } from "./object_groups.ts";
import { ageOf, ChosenObjects, filterArgs, readFilter } from "./objects.ts";
import { ADAPTER_PERMISSIONS } from "./permissions.ts";
import { bytesInWords, dateOf, DAY_MS, parseCount } from "./quantities.ts";
import { checkCanList, forEachStore } from "./stores.ts";

const AGES: readonly [maxMs: number, name: string][] = [
  [DAY_MS / 24, "within 1 hour"],
  [DAY_MS, "within 1 day"],
  [7 * DAY_MS, "within 7 days"],
  [30 * DAY_MS, "within 30 days"],
  [90 * DAY_MS, "within 90 days"],
  [Infinity, "more than 90 days ago"],
];

type NameOf = (object: ListedObject, now: number) => string;

const GROUPINGS: Readonly<Record<string, NameOf>> = {
  model: ({ key }) => key.model,
  salt: ({ key }) => key.cacheSalt === "" ? "(no salt)" : key.cacheSalt,
  age(object, now) {
    const age = ageOf(object, now);
    return age === undefined
      ? "unknown"
      : `used ${AGES.find(([maxMs]) => age <= maxMs)?.[1] ?? ""}`;
  },
  size: ({ byteLength }) => `up to ${bytesInWords(2 ** Math.ceil(Math.log2(byteLength || 1)))}`,
};

/** `kvtier stat`: totals of objects by model, salt, age or size, in bounded memory. */
export const statCommand: CliCommand = {
  description: "Count objects and bytes by model, salt, age or size",
  details: [
    "At most 65,536 groups are kept; the objects of further ones are counted together. The exit code is 1 if the listing is incomplete.",
  ],
  options: {
    ...l2Args,
    ...filterArgs,
    by: {
      type: "string",
      oneOf: Object.keys(GROUPINGS),
      default: "model",
      description: "What to count by",
    },
    top: {
      type: "string",
      valueHint: "N",
      default: "50",
      description: "Number of groups to show, those with most bytes first",
    },
  },
  permissions: ADAPTER_PERMISSIONS,
  examples: [
    `stat --l2-adapter '{"type":"fs","base_path":"./kv-cache"}'`,
    "stat --l2-config l2.jsonc --by salt --model llama-3 --top 10",
    "stat --l2-config l2.jsonc --by age --json",
  ],
  run: async (args, context) => {
    const { out, host: { signal } } = context;
    const filter = readFilter(args);
    const { by = "model", top = "50" } = args.values;
    const nameOf = GROUPINGS[by] as NameOf;
    const max = parseCount("top", top);
    const now = Date.now();
    return await forEachStore(args, context, async (guard) => {
      checkCanList("stat", guard);
      const groups = new ObjectGroups();
      const listing = new ChosenObjects(guard, filter, signal);
      for await (const object of listing) groups.add(nameOf(object, now), object);
      const sorted = groups.all.sort(([, a], [, b]) => b.bytes - a.bytes);
      for (const [name, totals] of sorted.slice(0, max)) out.print(`${name}: ${inWords(totals)}`);
      if (sorted.length > max) out.print(`and ${sorted.length - max} more groups`);
      const { totals, others } = groups;
      if (others.objects > 0) out.print(`(further groups): ${inWords(others)}`);
      out.print(totals.objects === 0 ? "No objects" : `All: ${inWords(totals)}`);
      const { problems, isComplete } = listing;
      for (const problem of problems) out.note(problem);
      const shown = sorted.slice(0, max).map(([name, group]) => ({ name, ...group }));
      const fields = { by, ...totals, groupCount: sorted.length, groups: shown, others, problems };
      return { isSuccess: isComplete, fields };
    });
  },
};

function inWords({ objects, bytes, usedAt }: ObjectTotals): string {
  const used = usedAt === 0 ? "" : `, last used ${dateOf(usedAt)}`;
  return `${objects} objects, ${bytesInWords(bytes)}${used}`;
}
