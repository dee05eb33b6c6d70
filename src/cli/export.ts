import type { ListedObject } from "../adapter/contract.ts";
import { ConfigError } from "../base/config_error.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { type CliCommand, type CommandArgs, type CommandContext, CommandError } from "./command.ts";
import { type ExportPosition, ExportWriter } from "./export_format.ts";
import { l2Args } from "./l2_config.ts";
import { ChosenObjects, filterArgs, type ObjectFilter, readFilter } from "./objects.ts";
import { Output } from "./output.ts";
import { PartialFile } from "./partial_file.ts";
import { ADAPTER_PERMISSIONS } from "./permissions.ts";
import { bytesInWords } from "./quantities.ts";
import { countObjects, readObjects } from "./read_objects.ts";
import { checkCanVerify, forEachStore, type StoreReport } from "./stores.ts";

/** `kvtier export FILE`: writes objects into one file. */
export const exportCommand: CliCommand = {
  description: "Write objects into one file, which import reads into any adapter",
  details: [
    "Every object is verified; damaged and foreign ones are left out and counted. An object that several adapters have is written once. The file appears under its name when it is complete. After an interruption the same command continues with what FILE.partial has.",
    "The exit code is 1 if an object is unreadable (FILE has the others), or if an adapter fails or lists incompletely (there is no FILE yet).",
  ],
  positional: {
    name: "FILE",
    description: "File to write; - for stdout, which cannot be continued",
  },
  options: {
    ...l2Args,
    ...filterArgs,
    force: { type: "boolean", description: "Replace FILE if it exists" },
    restart: { type: "boolean", description: "Discard what an interrupted export left" },
  },
  permissions: ["--allow-read and --allow-write for FILE and FILE.partial", ...ADAPTER_PERMISSIONS],
  examples: [
    `export kv.export --l2-adapter '{"type":"fs","base_path":"./kv-cache"}'`,
    "export llama.export --l2-config l2.jsonc --model llama-3 --newer-than 7d",
  ],
  run: async (args, context) => {
    const { positional: file } = args;
    if (file === undefined) return refuse("FILE", "the name of the file to write", "nothing");
    return await (file === "-" ? exportToStdout(args, context) : exportToFile(file, args, context));
  },
};

/** Where the objects of an export go. */
interface ExportTarget {
  readonly writer: ExportWriter;
  readonly filter: ObjectFilter;
  /** Objects that are written already. */
  readonly known: KnownKeys;
  /** Called when a batch is written. */
  readonly flush?: () => Promise<void>;
  /** Objects that could not be read. */
  unreadable: number;
}

async function exportToFile(
  file: string,
  args: CommandArgs,
  context: CommandContext,
): Promise<boolean> {
  const { out, host: { signal } } = context;
  const filter = readFilter(args);
  const known = new KnownKeys();
  using partial = await PartialFile.open(file, {
    selection: selectionOf(args),
    replaces: args.flags.has("force"),
    restarts: args.flags.has("restart"),
    onFound: (digest) => known.add(digest),
  });
  const { writer } = partial;
  const resumed = writer.position.objects;
  if (resumed > 0) out.note(`${partial.path} has ${resumed} objects: continuing`);
  const again = `run the same command again to continue: ${partial.path} has`;
  const flush = () => partial.flush();
  const target = { writer, filter, known, flush, unreadable: 0 };
  try {
    const isComplete = await forEachStore(
      args,
      context,
      (guard) => exportFrom(guard, target, context),
    );
    if (!isComplete) throw new CommandError("The export is incomplete");
  } catch (error) {
    await partial.flush();
    const isExpected = error instanceof CommandError || error === signal.reason;
    if (!isExpected) throw error;
    const { message } = error as Error;
    throw new CommandError(`${message}; ${again} ${writer.position.objects} objects`);
  }
  await partial.publish();
  const { objects, objectBytes } = writer.position;
  out.print(`${file}: ${objects} objects, ${bytesInWords(objectBytes)}`);
  out.json({ file, ...totalsOf(writer.position), resumed });
  return target.unreadable === 0;
}

async function exportToStdout(args: CommandArgs, context: CommandContext): Promise<boolean> {
  const { out, host } = context;
  if (out.isJson) refuse("--json", "a FILE other than -", "-");
  if (host.isOutTerminal) refuse("FILE", "a pipe at stdout, or a name", "a terminal");
  const filter = readFilter(args);
  // deno-lint-ignore require-await -- the writer waits for any target
  const writer = new ExportWriter(async (bytes) => host.out(bytes));
  await writer.begin({ selection: selectionOf(args) });
  const target = { writer, filter, known: new KnownKeys(), unreadable: 0 };
  const onStderr = { host, out: new Output({ ...host, out: host.err }, false) };
  const isComplete = await forEachStore(
    args,
    onStderr,
    (guard) => exportFrom(guard, target, onStderr),
  );
  if (!isComplete) throw new CommandError("The export is incomplete");
  await writer.end();
  const { objects, objectBytes } = writer.position;
  out.note(`${objects} objects, ${bytesInWords(objectBytes)}`);
  return target.unreadable === 0;
}

async function exportFrom(
  guard: AdapterGuard,
  target: ExportTarget,
  { out, host: { signal, isErrTerminal } }: CommandContext,
): Promise<StoreReport> {
  checkCanVerify("export", guard);
  const { writer, filter, known } = target;
  const counts = { intact: 0, damaged: 0, foreign: 0, unreadable: 0, gone: 0 };
  const listing = new ChosenObjects(guard, filter, signal);
  let listed = 0;
  async function* unknown(): AsyncGenerator<ListedObject, void> {
    for await (const object of listing) {
      listed++;
      if (!known.has(object.key.digest)) yield object;
    }
  }
  using progress = out.progress("export", await countObjects(guard, isErrTerminal));
  for await (const batch of readObjects(guard, unknown(), signal)) {
    for (const { state, object, listed, reason } of batch) {
      counts[state]++;
      if (object !== undefined) {
        await writer.add(object);
        known.add(object.key.digest);
      } else if (state !== "gone") {
        out.note(`left out: ${listed.key.id}: ${state}: ${reason}`);
      }
    }
    await target.flush?.();
    progress.show(listed, writer.position.objects, writer.position.objectBytes);
  }
  const { problems, isComplete } = listing;
  for (const problem of problems) out.note(problem);
  target.unreadable += counts.unreadable;
  const { intact: objects, ...others } = counts;
  return { isSuccess: isComplete, fields: { objects, ...others, problems } };
}

/** Remembers keys in some 70 bytes each. */
class KnownKeys {
  readonly #known = new Set<string>();

  /** Adds a key by its digest. */
  add(digest: Uint8Array): void {
    this.#known.add(nameOf(digest));
  }

  /** Whether a key was added. */
  has(digest: Uint8Array): boolean {
    return this.#known.has(nameOf(digest));
  }
}

function nameOf(digest: Uint8Array): string {
  return String.fromCharCode(...digest.subarray(0, 16));
}

/** The options that choose objects, as they were given. */
function selectionOf({ values }: CommandArgs): string {
  const given = Object.keys(filterArgs).filter((option) => values[option] !== undefined);
  return given.length === 0
    ? "all objects"
    : given.map((option) => `--${option}=${values[option]}`).join(" ");
}

function totalsOf({ objects, objectBytes, byteOffset }: ExportPosition) {
  return { objects, bytes: objectBytes, fileBytes: byteOffset };
}

function refuse(key: string, expected: string, received: string): never {
  throw new ConfigError({ subject: "kvtier export", key, expected, received });
}
