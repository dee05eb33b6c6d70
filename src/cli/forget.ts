import { ConfigError, failFor } from "../base/config_error.ts";
import { decodeFileName } from "../keys/key_codec.ts";
import { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { CliCommand, CommandContext } from "./command.ts";
import { l2Args } from "./l2_config.ts";
import { ChosenObjects, filterArgs, type ObjectFilter, readFilter } from "./objects.ts";
import { ADAPTER_PERMISSIONS } from "./permissions.ts";
import { bytesInWords } from "./quantities.ts";
import { BatchRemoval } from "./removal.ts";
import { checkCanDelete, checkCanList, forEachStore, type StoreReport } from "./stores.ts";

const fail = failFor("kvtier forget");

/** `kvtier forget`: removes the objects of keys, a salt or a model. */
export const forgetCommand: CliCommand = {
  description: "Remove the objects of keys, a cache salt or a model",
  details: [
    "With both --model and --salt, removes the objects that have both. A cache that is running keeps what it has in device memory, and may store it again: call its forget() instead.",
    "The exit code is 0 if afterwards the adapter certainly has none of these objects, even if there were none, and otherwise 1.",
  ],
  options: {
    ...l2Args,
    key: {
      type: "string",
      multiple: true,
      valueHint: "KEY",
      description: "Key as ls prints it, or name of a file of the fs adapter; may be repeated",
    },
    model: { ...filterArgs.model, description: "All objects of this model" },
    salt: {
      ...filterArgs.salt,
      description: "All objects under this cache salt; --salt= for those without one",
    },
    "dry-run": { type: "boolean", description: "Count the objects, and remove nothing" },
  },
  permissions: ADAPTER_PERMISSIONS,
  examples: [
    "forget --l2-config l2.jsonc --salt tenant-7",
    `forget --l2-adapter '{"type":"fs","base_path":"./kv-cache"}' --model llama-2 --dry-run`,
  ],
  run: async (args, context) => {
    const { values: { model, salt }, lists: { key: keyTexts } } = args;
    const isFiltered = model !== undefined || salt !== undefined;
    if ((keyTexts !== undefined) === isFiltered) {
      const expected = "--key, or else --model, --salt or both";
      const received = isFiltered ? "all of them" : "none of them";
      throw new ConfigError({ subject: "kvtier forget", expected, received });
    }
    const keys = keyTexts?.map(parseKey);
    const filter = readFilter(args);
    const isDryRun = args.flags.has("dry-run");
    return await forEachStore(args, context, async (guard) => {
      checkCanDelete("forget", guard);
      const removal = new BatchRemoval(guard, { isDryRun, isVerified: true });
      const problems = keys === undefined
        ? await removeChosen(guard, filter, removal, context)
        : await removeKeys(guard, keys, removal, isDryRun);
      return report(guard, removal, problems, isDryRun, context);
    }, { removes: !isDryRun });
  },
};

async function removeChosen(
  guard: AdapterGuard,
  filter: ObjectFilter,
  removal: BatchRemoval,
  { out, host: { signal } }: CommandContext,
): Promise<readonly string[]> {
  checkCanList("forget", guard);
  const listing = new ChosenObjects(guard, filter, signal);
  using progress = out.progress("forget");
  for await (const object of listing) {
    await removal.add(object);
    progress.show(0, removal.counts.objects, removal.counts.bytes);
  }
  await removal.flush();
  return listing.problems;
}

async function removeKeys(
  guard: AdapterGuard,
  keys: readonly ObjectKey[],
  removal: BatchRemoval,
  isDryRun: boolean,
): Promise<readonly string[]> {
  if (isDryRun) {
    const { done, status } = await guard.lookup(keys, { prefix: false });
    const found = done.gather(keys);
    guard.unlock(found);
    removal.counts.objects += found.length;
    return status === "answered" ? [] : [`The lookup failed: ${guard.lastError ?? status}`];
  }
  for (const key of keys) await removal.add({ key, byteLength: 0 });
  await removal.flush();
  return [];
}

function report(
  guard: AdapterGuard,
  { counts }: BatchRemoval,
  listed: readonly string[],
  isDryRun: boolean,
  { out }: CommandContext,
): StoreReport {
  const { objects, bytes, failed } = counts;
  const { hungCalls } = guard;
  const problems = [
    ...listed,
    ...failed === 0 ? [] : [`${failed} objects are in use or could not be removed`],
    ...hungCalls === 0 ? [] : [`${hungCalls} calls have not finished`],
  ];
  const size = bytes === 0 ? "" : `, ${bytesInWords(bytes)}`;
  out.print(`${isDryRun ? "Would remove" : "Removed"} ${objects} objects${size}`);
  for (const problem of problems) out.note(problem);
  const isComplete = problems.length === 0;
  return { isSuccess: isComplete, fields: { objects, bytes, isDryRun, isComplete, problems } };
}

/** Parses a key as `ls` prints it, or the name of a file. */
function parseKey(text: string): ObjectKey {
  const name = text.split("/").at(-1) ?? "";
  const named = decodeFileName(name);
  if (named !== null) return named;
  const [model = "", rank = "", group = "", hash = "", ...salt] = text.split("@");
  try {
    const key = new ObjectKey({
      chunkHash: Uint8Array.fromHex(hash),
      model,
      kvRank: parseInt(rank, 16),
      objectGroup: parseInt(group, 16),
      cacheSalt: salt.join("@"),
    });
    if (key.id === text) return key;
  } catch {
    // Reported below.
  }
  return fail("--key", "a key as ls prints it: MODEL@RANK@GROUP@HASH@SALT", text);
}
