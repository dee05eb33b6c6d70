import type { AdapterObject } from "../adapter/contract.ts";
import { ConfigError } from "../base/config_error.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { type CliCommand, type CommandArgs, type CommandContext, CommandError } from "./command.ts";
import { ExportFault, ExportReader, type ReadBytes } from "./export_format.ts";
import { l2Args, readL2Config } from "./l2_config.ts";
import type { Progress } from "./progress.ts";
import { ADAPTER_PERMISSIONS, askFor } from "./permissions.ts";
import { bytesInWords } from "./quantities.ts";
import { forEachStore, lastErrorOf, type StoreReport } from "./stores.ts";

/** Max bytes of a batch, unless a single object has more. */
const BATCH_BYTES = 8 * 2 ** 20;
/** Max objects of a batch. */
const BATCH_OBJECTS = 256;

/** `kvtier import FILE`: stores the objects of an export. */
export const importCommand: CliCommand = {
  description: "Store the objects of an export",
  details: [
    "Every object is verified before it is stored. Objects that the adapter has already are skipped, so the same command continues an interrupted import. A file that is truncated or was changed is refused at the place where it is not what export wrote; the objects before that place are imported. With several adapters, each gets all objects.",
    "The capacity of the configuration applies. The exit code is 1 if the file is refused, or an object could not be stored.",
  ],
  positional: { name: "FILE", description: "File that export wrote; - for stdin" },
  options: {
    ...l2Args,
    "dry-run": { type: "boolean", description: "Verify the file, and store nothing" },
  },
  permissions: ["--allow-read for FILE", ...ADAPTER_PERMISSIONS],
  examples: [
    `import kv.export --l2-adapter '{"type":"fs","base_path":"./kv-cache"}'`,
    "import kv.export --dry-run --json",
  ],
  run: async (args, context) => {
    const { positional: file } = args;
    if (file === undefined) return refuse("FILE", "the name of the file to read", "nothing");
    if (args.flags.has("dry-run")) return await verifyFile(file, context);
    if (file === "-" && (await readL2Config(args.raw)).length > 1) {
      refuse("FILE", "one adapter with -, or a file", "several adapters");
    }
    return await importFile(file, args, context);
  },
};

async function importFile(
  file: string,
  args: CommandArgs,
  context: CommandContext,
): Promise<boolean> {
  const { out, host: { signal } } = context;
  let refusal: string | undefined;
  const use = { keepsLimits: true, canCreate: true };
  try {
    const isSuccess = await forEachStore(args, context, async (guard) => {
      using input = await openInput(file, context);
      using progress = out.progress("import", input.byteLength);
      const target = new ImportTarget(guard);
      refusal = await readInput(file, input, (reader) => target.take(reader, signal, progress));
      return report(target, refusal, context);
    }, use);
    out.json({ file });
    return isSuccess;
  } catch (error) {
    if (error !== signal.reason) throw error;
    throw new CommandError("Interrupted: the same command continues the import");
  }
}

async function verifyFile(file: string, context: CommandContext): Promise<boolean> {
  const { out, host: { signal } } = context;
  using input = await openInput(file, context);
  using progress = out.progress("verify", input.byteLength);
  const { reader } = input;
  const refusal = await readInput(file, input, async () => {
    for await (const _object of reader.objects()) {
      const { byteOffset, objects, objectBytes } = reader.position;
      progress.show(byteOffset, objects, objectBytes);
      signal.throwIfAborted();
    }
  });
  const { objects, objectBytes: bytes } = reader.position;
  if (refusal !== undefined) out.note(refusal);
  out.print(`${objects} objects, ${bytesInWords(bytes)}`);
  out.json({ file, objects, bytes, isComplete: refusal === undefined, refusal });
  return refusal === undefined;
}

/** Reads an export; returns why it is refused from some place on. */
async function readInput(
  file: string,
  { reader }: ImportInput,
  work: (reader: ExportReader) => Promise<void>,
): Promise<string | undefined> {
  try {
    await reader.begin();
    await work(reader);
    return undefined;
  } catch (error) {
    if (!(error instanceof ExportFault)) throw error;
    if (error.kind === "not-an-export") return refuse("FILE", "a file that export wrote", file);
    const { objects } = reader.position;
    const place = `at byte ${error.byteOffset}, after ${objects} objects`;
    return `${file} is ${error.kind} ${place}: ${error.message}`;
  }
}

function report(
  { counts, guard }: ImportTarget,
  refusal: string | undefined,
  { out }: CommandContext,
): StoreReport {
  const { stored, present, failed, bytes } = counts;
  const problems = [
    ...refusal === undefined ? [] : [refusal],
    ...failed === 0 ? [] : [`${failed} objects could not be stored: ${lastErrorOf(guard)}`],
  ];
  for (const problem of problems) out.note(problem);
  out.print(`${stored} objects imported, ${bytesInWords(bytes)}; ${present} were there already`);
  return { isSuccess: problems.length === 0, fields: { ...counts, problems } };
}

/** An export that is being read. */
interface ImportInput extends Disposable {
  readonly reader: ExportReader;
  /** Size of the file, if it is known. */
  readonly byteLength: number | undefined;
}

async function openInput(path: string, { host }: CommandContext): Promise<ImportInput> {
  const inputOf = (read: ReadBytes) => new ExportReader(read);
  if (path === "-") {
    return { reader: inputOf(host.read), byteLength: undefined, [Symbol.dispose]() {} };
  }
  await askFor({ name: "read", path });
  try {
    const file = await Deno.open(path);
    const { size } = await file.stat();
    const read: ReadBytes = (target) => file.read(target);
    return { reader: inputOf(read), byteLength: size, [Symbol.dispose]: () => file.close() };
  } catch (error) {
    return refuse("FILE", "a file that can be read", (error as Error).message);
  }
}

/** Stores the objects that an adapter lacks. */
class ImportTarget {
  readonly guard: AdapterGuard;
  readonly counts = { stored: 0, present: 0, failed: 0, bytes: 0 };
  #batch: AdapterObject[] = [];
  #batchBytes = 0;

  constructor(guard: AdapterGuard) {
    this.guard = guard;
  }

  /**
   * Takes all objects of an export, those before a fault too.
   *
   * @throws {ExportFault} If the export is not what was written.
   * @throws {CommandError} If the adapter fails.
   */
  async take(reader: ExportReader, signal: AbortSignal, progress: Progress): Promise<void> {
    try {
      for await (const object of reader.objects()) {
        const isFull = this.#batchBytes + object.byteLength > BATCH_BYTES ||
          this.#batch.length === BATCH_OBJECTS;
        if (isFull) await this.#flush();
        signal.throwIfAborted();
        this.#batch.push(object);
        this.#batchBytes += object.byteLength;
        const { byteOffset, objects, objectBytes } = reader.position;
        progress.show(byteOffset, objects, objectBytes);
      }
    } catch (error) {
      if (error instanceof ExportFault) await this.#flush();
      throw error;
    }
    await this.#flush();
  }

  async #flush(): Promise<void> {
    const batch = this.#batch;
    this.#batch = [];
    this.#batchBytes = 0;
    if (batch.length === 0) return;
    const { guard, counts } = this;
    const keys = batch.map(({ key }) => key);
    const { done: present, status } = await guard.lookup(keys, { prefix: false });
    guard.unlock(present.gather(keys));
    if (status !== "answered") throw new CommandError(lastErrorOf(guard));
    const lacking = present.invert().gather(batch);
    counts.present += batch.length - lacking.length;
    if (lacking.length === 0) return;
    const { maxObjectBytes = Infinity } = guard.capabilities;
    const fitting = lacking.filter(({ byteLength }) => byteLength <= maxObjectBytes);
    counts.failed += lacking.length - fitting.length;
    if (fitting.length === 0) return;
    const answer = await guard.store(fitting);
    if (answer.status !== "answered") throw new CommandError(lastErrorOf(guard));
    const stored = answer.done.gather(fitting);
    counts.stored += stored.length;
    counts.bytes += stored.reduce((sum, { byteLength }) => sum + byteLength, 0);
    counts.failed += fitting.length - stored.length;
  }
}

function refuse(key: string, expected: string, received: string): never {
  throw new ConfigError({ subject: "kvtier import", key, expected, received });
}
