import type { ListedObject } from "../adapter/contract.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { type CliCommand, type CommandContext, CommandError } from "./command.ts";
import { l2Args } from "./l2_config.ts";
import { ObjectGroups } from "./object_groups.ts";
import { ageOf, ALL_OBJECTS, ChosenObjects, useOf } from "./objects.ts";
import { ADAPTER_PERMISSIONS } from "./permissions.ts";
import { bytesInWords, parseAge, parseBytes } from "./quantities.ts";
import { BatchRemoval } from "./removal.ts";
import {
  checkCanDelete,
  checkCanList,
  forEachStore,
  lastErrorOf,
  type StoreReport,
} from "./stores.ts";
import { type UseCut, UseHistogram } from "./use_histogram.ts";

/** What is to be removed. */
interface GcRules {
  /** Models not used for this long, in milliseconds. */
  readonly unusedModelsMs: number | undefined;
  /** Objects not used for this long, in milliseconds. */
  readonly maxAgeMs: number | undefined;
  /** Bytes that may stay. */
  readonly maxBytes: number | undefined;
  readonly isDryRun: boolean;
}

/** `kvtier gc`: removes leftovers, unused models and old objects. */
export const gcCommand: CliCommand = {
  description: "Remove leftovers of dead writers, unused models, and old objects",
  details: [
    "Without options, removes only what writers that were killed left behind (fs). The rules apply in the order of the options; objects whose last use is unknown count as old for --max-size, and never for an age. Running caches may use the adapter meanwhile: a removed object is a miss.",
    "The exit code is 1 if an object could not be removed, or a listing is incomplete; models are then not taken for unused.",
  ],
  options: {
    ...l2Args,
    "unused-models": {
      type: "string",
      valueHint: "AGE",
      description: "Remove models of which no object was used for this long, like 30d",
    },
    "max-age": {
      type: "string",
      valueHint: "AGE",
      description: "Remove objects not stored or used for this long",
    },
    "max-size": {
      type: "string",
      valueHint: "SIZE",
      description: "Remove the least recently used objects until at most SIZE is left, like 20GiB",
    },
    "dry-run": { type: "boolean", description: "Count what would be removed, and remove nothing" },
  },
  permissions: ADAPTER_PERMISSIONS,
  examples: [
    `gc --l2-adapter '{"type":"fs","base_path":"./kv-cache"}'`,
    "gc --l2-config l2.jsonc --unused-models 30d --max-size 100GiB --dry-run",
  ],
  run: async (args, context) => {
    const { "unused-models": unused, "max-age": age, "max-size": size } = args.values;
    const rules: GcRules = {
      unusedModelsMs: unused === undefined ? undefined : parseAge("unused-models", unused),
      maxAgeMs: age === undefined ? undefined : parseAge("max-age", age),
      maxBytes: size === undefined ? undefined : parseBytes("max-size", size),
      isDryRun: args.flags.has("dry-run"),
    };
    const run = (guard: AdapterGuard) => new StoreGc(guard, rules, context).run();
    return await forEachStore(args, context, run, { removes: !rules.isDryRun });
  },
};

/** Applies the rules to one adapter. */
class StoreGc {
  readonly #guard: AdapterGuard;
  readonly #rules: GcRules;
  readonly #context: CommandContext;
  readonly #now = Date.now();
  readonly #removal: BatchRemoval;

  constructor(guard: AdapterGuard, rules: GcRules, context: CommandContext) {
    this.#guard = guard;
    this.#rules = rules;
    this.#context = context;
    this.#removal = new BatchRemoval(guard, rules);
  }

  async run(): Promise<StoreReport> {
    const { out } = this.#context;
    const { isDryRun, unusedModelsMs, maxAgeMs, maxBytes } = this.#rules;
    const swept = isDryRun ? undefined : await this.#sweep();
    if (swept !== undefined) {
      out.print(`Removed ${swept.files} leftovers, ${bytesInWords(swept.bytes)}`);
    }
    const hasRules = [unusedModelsMs, maxAgeMs, maxBytes].some((rule) => rule !== undefined);
    const unusedModels = hasRules ? await this.#removeObjects() : [];
    const { counts } = this.#removal;
    if (hasRules) {
      const verb = isDryRun ? "Would remove" : "Removed";
      out.print(`${verb} ${counts.objects} objects, ${bytesInWords(counts.bytes)}`);
    }
    if (counts.failed > 0) out.note(`${counts.failed} objects are in use or could not be removed`);
    return {
      isSuccess: counts.failed === 0,
      fields: { isDryRun, leftovers: swept, unusedModels, ...counts },
    };
  }

  async #sweep() {
    if (!this.#guard.canSweep) return undefined;
    const swept = await this.#guard.sweep();
    if (swept === undefined) throw new CommandError(lastErrorOf(this.#guard));
    return swept;
  }

  async #removeObjects(): Promise<readonly string[]> {
    checkCanList("gc", this.#guard);
    checkCanDelete("gc", this.#guard);
    const unused = await this.#unusedModels();
    const isOld = ({ key }: ListedObject, age = 0): boolean =>
      unused.has(key.model) || age >= (this.#rules.maxAgeMs ?? Infinity);
    const cut = await this.#cut(isOld);
    let left = cut?.bytes ?? 0;
    await this.#forEach("gc", async (object) => {
      const usedAt = Math.min(useOf(object) ?? 0, this.#now);
      let isRemoved = isOld(object, ageOf(object, this.#now));
      if (!isRemoved && cut !== undefined) {
        const isLast = usedAt >= cut.before && usedAt < cut.until && left > 0;
        if (isLast) left -= object.byteLength;
        isRemoved = isLast || usedAt < cut.before;
      }
      if (isRemoved) await this.#removal.add(object);
    });
    await this.#removal.flush();
    return [...unused];
  }

  /** Models of which no object was used recently. */
  async #unusedModels(): Promise<ReadonlySet<string>> {
    const { unusedModelsMs } = this.#rules;
    if (unusedModelsMs === undefined) return new Set();
    const groups = new ObjectGroups();
    await this.#forEach("models", (object) => groups.add(object.key.model, object));
    const before = this.#now - unusedModelsMs;
    // A model whose uses are unknown may be in use.
    const unused = groups.all.filter(([, { usedAt }]) => usedAt > 0 && usedAt < before);
    return new Set(unused.map(([model]) => model));
  }

  /** Where the least recently used bytes end that are too many. */
  async #cut(
    isOld: (object: ListedObject, age: number | undefined) => boolean,
  ): Promise<UseCut | undefined> {
    const { maxBytes } = this.#rules;
    if (maxBytes === undefined) return undefined;
    const uses = new UseHistogram();
    await this.#forEach("sizes", (object) => {
      if (isOld(object, ageOf(object, this.#now))) return;
      uses.add(Math.min(useOf(object) ?? 0, this.#now), object.byteLength);
    });
    return uses.bytes > maxBytes ? uses.cut(uses.bytes - maxBytes) : undefined;
  }

  /** Visits all objects; fails if not all of them can be listed. */
  async #forEach(
    what: string,
    visit: (object: ListedObject) => void | Promise<void>,
  ): Promise<void> {
    const { out, host: { signal } } = this.#context;
    const listing = new ChosenObjects(this.#guard, ALL_OBJECTS, signal);
    using progress = out.progress(what);
    let objects = 0;
    let bytes = 0;
    for await (const object of listing) {
      objects++;
      bytes += object.byteLength;
      const visited = visit(object);
      if (visited !== undefined) await visited;
      progress.show(0, objects, bytes);
    }
    const [problem] = listing.problems;
    if (!listing.isComplete) throw new CommandError(problem ?? "Not all objects could be listed");
  }
}
