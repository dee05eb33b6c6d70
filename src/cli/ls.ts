import type { ListedObject } from "../adapter/contract.ts";
import type { CliCommand } from "./command.ts";
import { l2Args } from "./l2_config.ts";
import { ChosenObjects, filterArgs, readFilter, useOf } from "./objects.ts";
import { ADAPTER_PERMISSIONS } from "./permissions.ts";
import { bytesInWords, dateOf, parseCount } from "./quantities.ts";
import { checkCanList, forEachStore } from "./stores.ts";

/** `kvtier ls`: lists objects, one a line, in bounded memory. */
export const lsCommand: CliCommand = {
  description: "List objects: size, last use, and the key that forget takes",
  details: [
    "The order is that of the adapter. For totals, see stat. The exit code is 1 if the listing is incomplete.",
  ],
  options: {
    ...l2Args,
    ...filterArgs,
    limit: { type: "string", valueHint: "N", description: "Stop after N objects of each adapter" },
  },
  permissions: ADAPTER_PERMISSIONS,
  examples: [
    `ls --l2-adapter '{"type":"fs","base_path":"./kv-cache"}' --model llama-3 --limit 20`,
    "ls --l2-config l2.jsonc --salt tenant-7 --json",
  ],
  run: async (args, context) => {
    const { out, host: { signal } } = context;
    const filter = readFilter(args);
    const { limit } = args.values;
    const max = limit === undefined ? Infinity : parseCount("limit", limit);
    let addToJson: ((item: unknown) => void) | undefined;
    return await forEachStore(args, context, async (guard, _config, adapter) => {
      checkCanList("ls", guard);
      addToJson ??= out.openList("objects");
      const listing = new ChosenObjects(guard, filter, signal);
      let objects = 0;
      let bytes = 0;
      for await (const object of listing) {
        if (objects === max) break;
        objects++;
        bytes += object.byteLength;
        out.print(inWords(object));
        if (out.isJson) addToJson({ adapter, ...inJson(object) });
      }
      const { problems, isComplete } = listing;
      for (const problem of problems) out.note(problem);
      out.print(objects === 0 ? "No objects" : `${objects} objects, ${bytesInWords(bytes)}`);
      return { isSuccess: isComplete, fields: { objects, bytes, problems } };
    });
  },
};

function inWords(object: ListedObject): string {
  const usedAt = useOf(object);
  const used = usedAt === undefined ? "unknown" : dateOf(usedAt).slice(0, 19);
  return `${bytesInWords(object.byteLength).padStart(9)}  ${used.padEnd(19)}  ${object.key.id}`;
}

/** Fields of an object in JSON. */
export function inJson(object: ListedObject): Readonly<Record<string, unknown>> {
  const { key, byteLength: bytes } = object;
  const { id, model, cacheSalt: salt, kvRank, objectGroup, chunkHashHex: chunkHash } = key;
  return { key: id, model, salt, kvRank, objectGroup, chunkHash, bytes, usedAt: useOf(object) };
}
