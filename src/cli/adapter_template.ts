/** Source of a working adapter that keeps objects as files in a directory. */
export function adapterSource(type: string): string {
  return `import {
  AdapterError,
  type AdapterObject,
  Bitmap,
  boundsOf,
  Capacity,
  concatParts,
  decodeFileName,
  defineL2Adapter,
  encodeFileName,
  fillParts,
  isHashedFileName,
  keyInTail,
  type ListOptions,
  type ObjectKey,
} from ${own("adapter")};

const TYPE = "${type}";

/** Keeps objects as files in a directory. Replace the file operations with those of your store. */
export default defineL2Adapter({
  type: TYPE,
  summary: "Objects as files in a directory.",
  config: {
    base_path: {
      type: "string",
      required: true,
      help: "Directory for the objects; created if it does not exist.",
    },
    max_capacity_gb: {
      type: "number",
      exclusiveMinimum: 0,
      default: 10,
      help: "Max GiB of objects; the least recently used are evicted first.",
    },
  },
  async create(config, { clock, onError, onEvicted }) {
    const { base_path: directory, max_capacity_gb: gib } = config;
    await Deno.mkdir(directory, { recursive: true });
    const pathOf = (key: ObjectKey) => \`\${directory}/\${encodeFileName(key)}\`;

    const write = async ({ key, parts }: AdapterObject) => {
      // Renaming publishes the object atomically: concurrent readers never see a part of it.
      const temporary = \`\${directory}/\${crypto.randomUUID()}.tmp\`;
      try {
        await Deno.writeFile(temporary, concatParts(parts));
        await Deno.rename(temporary, pathOf(key));
      } catch (error) {
        await Deno.remove(temporary).catch(() => {});
        throw error;
      }
    };
    const read = async ({ key, parts }: AdapterObject) =>
      fillParts(parts, await Deno.readFile(pathOf(key)));
    const sizeOf = async ({ key }: { key: ObjectKey }) =>
      (await Deno.stat(pathOf(key))).size;
    const remove = async (item: { key: ObjectKey }) => {
      const size = await sizeOf(item);
      await Deno.remove(pathOf(item.key));
      return size;
    };
    const keyOf = async (name: string) => {
      if (!isHashedFileName(name)) return decodeFileName(name);
      // The key is too long for a name; the cache writes it into the object.
      const bytes = await Deno.readFile(\`\${directory}/\${name}\`);
      return keyInTail(bytes, bytes.byteLength);
    };

    /** Runs \`work\` for each item. Failures are reported and affect only their own item. */
    const forEach = <Item extends { key: ObjectKey }, Result>(
      operation: string,
      items: readonly Item[],
      work: (item: Item) => Promise<Result>,
    ) =>
      Promise.all(items.map((item) =>
        work(item).catch((cause: unknown) => {
          if (cause instanceof Deno.errors.NotFound) return "absent";
          const { key } = item;
          onError(new AdapterError({ adapter: TYPE, operation, key, cause }));
          return "failed";
        })
      ));
    const isDone = (result: unknown) =>
      typeof result !== "string" && result !== false;
    const bits = (results: readonly unknown[]) => Bitmap.from(results, isDone);
    const keyed = (keys: readonly ObjectKey[]) => keys.map((key) => ({ key }));

    const list = async function* ({ model, onKeyless }: Partial<ListOptions>) {
      for await (const { name } of Deno.readDir(directory)) {
        const key = await keyOf(name).catch(() => null);
        if (key === null && isHashedFileName(name)) onKeyless?.();
        if (key === null || key.model !== (model ?? key.model)) continue;
        const [byteLength] = await forEach("list", keyed([key]), sizeOf);
        if (typeof byteLength === "number") yield { key, byteLength };
      }
    };

    // Reserves room before a write, evicts above a watermark, locks lookups.
    const capacity = new Capacity({
      adapter: TYPE,
      bounds: boundsOf(gib),
      scan: () => list({}),
      remove: (keys) => forEach("delete", keyed(keys), remove),
      clock,
      onError,
      onEvicted,
    });

    return {
      // The conformance suite tests the capabilities declared here.
      capabilities: { durable: true, shared: true, evicts: true },
      store: (objects, call) =>
        capacity.store(objects, call, async (fitting) => {
          return bits(await forEach("store", fitting, write));
        }),
      lookupAndLock: (keys, { prefix }) =>
        capacity.lockFound(keys, prefix, async () => {
          return bits(await forEach("lookup", keyed(keys), sizeOf));
        }),
      unlock: (keys) => capacity.unlock(keys),
      touch: (keys) => capacity.touch(keys),
      async load(objects) {
        const loaded = bits(await forEach("load", objects, read));
        capacity.renew(loaded.gather(objects).map(({ key }) => key));
        return loaded;
      },
      delete: (keys, call) => capacity.delete(keys, call),
      list,
      [Symbol.asyncDispose]: () => capacity[Symbol.asyncDispose](),
    };
  },
});
`;
}

/** Source of the conformance test of that adapter. */
export function adapterTestSource(type: string): string {
  return `import { runAdapterConformance } from ${own("testing")};
import adapter from "./${type}.ts";

async function newDirectory(config: Record<string, unknown>) {
  const directory = await Deno.makeTempDir();
  return {
    config: { ...config, base_path: directory },
    [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
  };
}

runAdapterConformance({
  module: adapter,
  capabilities: { durable: true, shared: true, evicts: true },
  config: () => newDirectory({}),
  boundedConfig: (capacityBytes) =>
    newDirectory({ max_capacity_gb: capacityBytes / 2 ** 30 }),
});
`;
}

/** Import specifier of an entry point of this package. */
function own(entryPoint: string): string {
  return `"@kvtier/kvtier/${entryPoint}"`;
}
