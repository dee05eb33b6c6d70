import type { L2Config } from "../l2/adapter_config.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { GIB, MIB } from "../base/units.ts";
import { promisesOf } from "./adapters.ts";
import type { Findings } from "./findings.ts";
import { ObjectGroups } from "./object_groups.ts";
import { ALL_OBJECTS, ChosenObjects } from "./objects.ts";
import { bytesInWords, timeInWords } from "./quantities.ts";
import { roundTrip, TEST_MODEL } from "./round_trip.ts";

/** Slower loads take longer than many prompts take to compute, in bytes per second. */
const SLOW_LOAD = 100 * MIB;
/** Slower lookups delay every prompt, in milliseconds. */
const SLOW_LOOKUP_MS = 50;
/** Max difference between two clocks, in milliseconds: signatures of S3 allow 15 minutes. */
const MAX_SKEW_MS = 60_000;
/** Models that are named. */
const MAX_NAMES = 5;

/** The prompts that are to be hit. */
export interface Wanted {
  readonly model: string | undefined;
  readonly salt: string | undefined;
}

/** Checks an open adapter: promises, a round trip, its clock, its problems. */
export async function checkStore(findings: Findings, guard: AdapterGuard): Promise<void> {
  const { type, capabilities } = guard;
  findings.add(type, "ok", promisesOf(capabilities));
  if (!capabilities.durable) {
    const text = "after a restart nothing would be hit: add an adapter whose objects survive";
    findings.add(`${type}: restarts`, "note", text);
  }
  const before = Date.now();
  const { storeMs, lookupMs, loadMs, listedAt, isRemoved } = await roundTrip(guard, {
    lists: guard.canList,
  });
  const speed = MIB / Math.max(1e-3, loadMs) * 1000;
  const isSlow = speed < SLOW_LOAD || lookupMs > SLOW_LOOKUP_MS;
  const times = `1 MiB stored in ${timeInWords(storeMs)}, found in ${timeInWords(lookupMs)}, ` +
    `loaded in ${timeInWords(loadMs)} (${bytesInWords(speed)}/s)`;
  const help = ": a short prompt may be computed sooner than loaded";
  findings.add(`${type}: round trip`, isSlow ? "slow" : "ok", isSlow ? times + help : times);
  if (!isRemoved) {
    const text = "the test object was not removed: this adapter keeps what is forgotten";
    findings.add(`${type}: removal`, guard.canDelete ? "wrong" : "note", text);
  }
  if (listedAt !== undefined) {
    const skew = Math.max(0, before - listedAt, listedAt - Date.now());
    const isOff = skew > MAX_SKEW_MS;
    const text = isOff
      ? `differs from this host's by ${timeInWords(skew)}: synchronize both`
      : "agrees with this host's";
    findings.add(`${type}: clock`, isOff ? "wrong" : "ok", text);
  }
  for (const problem of guard.reportStatus().problems) findings.add(type, "wrong", problem);
}

/** Says whether anything could be hit, and if not, why. */
export async function checkHits(
  findings: Findings,
  guard: AdapterGuard,
  { config, wanted, signal }: {
    readonly config: L2Config;
    readonly wanted: Wanted;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { type } = guard;
  if (!guard.canList) {
    return findings.add(`${type}: objects`, "note", "this adapter cannot list its objects");
  }
  const models = new ObjectGroups();
  let ofModel = 0;
  let matching = 0;
  const listing = new ChosenObjects(guard, ALL_OBJECTS, signal);
  for await (const object of listing) {
    const { model, cacheSalt } = object.key;
    if (model === TEST_MODEL) continue;
    models.add(model, object);
    const isModel = wanted.model === undefined || model === wanted.model;
    if (isModel) ofModel++;
    if (isModel && (wanted.salt === undefined || cacheSalt === wanted.salt)) matching++;
  }
  for (const problem of listing.problems) findings.add(`${type}: objects`, "wrong", problem);
  const { objects, bytes } = models.totals;
  const counted = `${objects} objects, ${bytesInWords(bytes)}`;
  if (objects === 0) {
    const text = "none: nothing would be hit until a cache with this configuration stores";
    return findings.add(`${type}: objects`, "note", text);
  }
  const capacity = capacityIn(config);
  if (capacity > 0 && bytes > capacity) {
    const text = `${counted}, but max_capacity_gb is ${capacity / GIB}: a cache evicts the rest`;
    findings.add(`${type}: capacity`, "wrong", text);
  }
  const names = models.all.slice(0, MAX_NAMES).map(([name]) => name).join(", ");
  const more = models.all.length > MAX_NAMES ? ", …" : "";
  const text = ofModel === 0
    ? `nothing would be hit: ${counted}, but none of model ${wanted.model}; there are ${names}${more}`
    : matching === 0
    ? `nothing would be hit: ${ofModel} objects of the model, but none under this salt`
    : `${matching} of ${counted} could be hit (${names}${more}), by prompts with the same first ` +
      "tokens, model name, salt, layout and chunk size";
  findings.add(`${type}: objects`, matching === 0 ? "wrong" : "ok", text);
}

/** Capacity of a configuration in bytes; 0 if it has none. */
function capacityIn({ type, max_capacity_gb: gib }: L2Config): number {
  if (typeof gib === "number") return gib * GIB;
  return type === "fs" ? 10 * GIB : 0;
}
