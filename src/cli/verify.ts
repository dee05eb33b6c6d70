import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { type CliCommand, type CommandContext, CommandError } from "./command.ts";
import { l2Args } from "./l2_config.ts";
import { ChosenObjects, filterArgs, type ObjectFilter, readFilter } from "./objects.ts";
import { ADAPTER_PERMISSIONS } from "./permissions.ts";
import { bytesInWords } from "./quantities.ts";
import { countObjects, type ReadObject, readObjects } from "./read_objects.ts";
import { BatchRemoval } from "./removal.ts";
import { checkCanVerify, forEachStore, type StoreReport } from "./stores.ts";

/** `kvtier verify`: reads every object and checks its trailer and checksum. */
export const verifyCommand: CliCommand = {
  description: "Read every object and verify it against its trailer",
  details: [
    "Tells apart: damaged (not what was stored), foreign (an object of another key, layout, format or encryption key, which others may use), unreadable (listed, but the adapter does not load it). Nothing is removed without --repair, which removes damaged objects only.",
    "The exit code is 1 if an object is damaged and was not removed, an object is unreadable, or the listing is incomplete.",
  ],
  options: {
    ...l2Args,
    ...filterArgs,
    repair: { type: "boolean", description: "Remove damaged objects, which are misses anyway" },
  },
  permissions: ADAPTER_PERMISSIONS,
  examples: [
    `verify --l2-adapter '{"type":"fs","base_path":"./kv-cache"}'`,
    "verify --l2-config l2.jsonc --repair --json",
  ],
  run: async (args, context) => {
    const filter = readFilter(args);
    const isRepairing = args.flags.has("repair");
    let addToJson: ((item: unknown) => void) | undefined;
    return await forEachStore(args, context, (guard, _config, adapter) => {
      checkCanVerify("verify", guard);
      addToJson ??= context.out.openList("objects");
      const report = (item: Readonly<Record<string, unknown>>) => addToJson?.({ adapter, ...item });
      return verifyStore(guard, { filter, isRepairing, report }, context);
    });
  },
};

/** What to verify, and what to do about it. */
interface Verification {
  readonly filter: ObjectFilter;
  readonly isRepairing: boolean;
  /** Adds an object that is not intact to the JSON document. */
  readonly report: (item: Readonly<Record<string, unknown>>) => void;
}

async function verifyStore(
  guard: AdapterGuard,
  { filter, isRepairing, report }: Verification,
  { out, host: { signal, isErrTerminal } }: CommandContext,
): Promise<StoreReport> {
  const counts = { intact: 0, damaged: 0, foreign: 0, unreadable: 0, gone: 0 };
  let objects = 0;
  let bytes = 0;
  const removal = new BatchRemoval(guard);
  const listing = new ChosenObjects(guard, filter, signal);
  const total = await countObjects(guard, isErrTerminal);
  const note = ({ state, reason, listed }: ReadObject): void => {
    if (state === "intact" || state === "gone") return;
    out.print(`${state} ${listed.key.id}: ${reason}`, state === "damaged" ? "red" : "yellow");
    report({ key: listed.key.id, state, reason });
  };
  let failure: string | undefined;
  try {
    using progress = out.progress("verify", total);
    for await (const batch of readObjects(guard, listing, signal)) {
      for (const read of batch) {
        counts[read.state]++;
        objects++;
        if (read.state === "intact") bytes += read.listed.byteLength;
        note(read);
        if (read.state === "damaged" && isRepairing) await removal.add(read.listed);
      }
      progress.show(objects, objects, bytes);
    }
    await removal.flush();
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    failure = error.message;
  }
  const { intact, damaged, foreign, unreadable, gone } = counts;
  const removed = removal.counts.objects;
  out.print(
    `${objects} objects: ${intact} intact (${bytesInWords(bytes)}), ${damaged} damaged, ` +
      `${foreign} foreign, ${unreadable} unreadable` +
      `${gone > 0 ? `, ${gone} removed meanwhile` : ""}${
        isRepairing ? `; ${removed} removed` : ""
      }`,
  );
  const problems = [...listing.problems, ...failure === undefined ? [] : [failure]];
  for (const problem of problems) out.note(problem);
  const isSuccess = problems.length === 0 && unreadable === 0 && damaged === removed;
  return { isSuccess, fields: { ...counts, bytes, removed, problems } };
}
