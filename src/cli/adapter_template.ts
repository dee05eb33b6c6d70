/** Source of a working adapter that keeps objects as files in a directory. */
export function adapterSource(type: string): string {
  return `import {
  AdapterError,
  type AdapterObject,
  Bitmap,
  concatParts,
  defineL2Adapter,
  encodeFileName,
  fillParts,
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
  },
  async create({ base_path: directory }, { onError }) {
    await Deno.mkdir(directory, { recursive: true });
    const pathOf = (key: ObjectKey) => \`\${directory}/\${encodeFileName(key)}\`;

    const write = async ({ key, parts }: AdapterObject) => {
      // Renaming publishes the object atomically: concurrent readers never see a part of it.
      const temporary = \`\${directory}/\${crypto.randomUUID()}.tmp\`;
      try {
        await Deno.writeFile(temporary, concatParts(parts));
        await Deno.rename(temporary, pathOf(key));
        return true;
      } catch (error) {
        await Deno.remove(temporary).catch(() => {});
        throw error;
      }
    };
    const read = async ({ key, parts }: AdapterObject) =>
      fillParts(parts, await Deno.readFile(pathOf(key)));
    const exists = async ({ key }: { key: ObjectKey }) =>
      (await Deno.stat(pathOf(key))).isFile;

    /** Runs \`work\` for each item. Failures are reported and affect only their own item. */
    const forEach = async <T extends { key: ObjectKey }>(
      operation: string,
      items: readonly T[],
      work: (item: T) => Promise<boolean>,
    ) => {
      const results = await Promise.allSettled(items.map(work));
      return Bitmap.from(items, ({ key }, i) => {
        const result = results[i];
        if (result?.status === "fulfilled") return result.value;
        const cause = result?.reason;
        if (!(cause instanceof Deno.errors.NotFound)) {
          onError(new AdapterError({ adapter: TYPE, operation, key, cause }));
        }
        return false;
      });
    };

    return {
      // The conformance suite tests the capabilities declared here.
      capabilities: { durable: true, shared: true },
      async store(objects) {
        const stored = await forEach("store", objects, write);
        const sizes = stored.gather(objects).map((object) => object.byteLength);
        return { stored, bytes: sizes.reduce((sum, size) => sum + size, 0) };
      },
      lookupAndLock: (keys) =>
        forEach("lookup", keys.map((key) => ({ key })), exists),
      load: (objects) => forEach("load", objects, read),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  },
});
`;
}

/** Source of the conformance test of that adapter. */
export function adapterTestSource(type: string): string {
  return `import { runAdapterConformance } from ${own("testing")};
import adapter from "./${type}.ts";

runAdapterConformance({
  module: adapter,
  capabilities: { durable: true, shared: true },
  async config() {
    const directory = await Deno.makeTempDir();
    return {
      config: { base_path: directory },
      [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
    };
  },
});
`;
}

/** Import specifier of an entry point of this package. */
function own(entryPoint: string): string {
  return `"@kvtier/kvtier/${entryPoint}"`;
}
