/**
 * The program of an isolated plugin: serves an adapter over standard input and output.
 *
 * @module
 */
import {
  type AdapterObject,
  asAdapterModule,
  Bitmap,
  ConfigError,
  type L2Adapter,
  type L2AdapterModule,
  type ListedObject,
  parseAdapterConfig,
} from "../../src/adapter/contract.ts";
import type { TrailerFault } from "../../src/adapter/object_trailer.ts";
import { systemClock } from "../../src/base/clock.ts";
import { FrameReader, FrameWriter } from "./frames.ts";
import {
  boundStatus,
  decodeKey,
  encodeError,
  encodeKeys,
  type ErrorMessage,
  type ListAnswer,
  MAX_ERRORS,
  MAX_EVICTED,
  MAX_LISTED,
  OPTIONAL,
  type PluginReply,
  type Request,
} from "./messages.ts";

/** Time between two reports of the adapter's status, in milliseconds. */
const STATUS_MS = 1_000;
/** Time after which a part of a listing is sent, however small, in milliseconds. */
const LISTING_MS = 100;

interface Listing {
  readonly objects: AsyncGenerator<ListedObject, void>;
  /** Objects left out that no answer has counted yet. */
  keyless: number;
  hasEnded: boolean;
}

/** Bytes that follow an answer. */
interface AnswerWithBytes {
  readonly value?: unknown;
  readonly parts?: readonly Uint8Array[];
}

// The standard output is for answers.
// deno-lint-ignore no-console -- the log of the plugin goes to the standard error
for (const name of ["log", "info", "debug", "dir", "table"] as const) console[name] = console.error;

const reader = new FrameReader(Deno.stdin.readable);
const writer = new FrameWriter(Deno.stdout.writable);
const closing = new AbortController();
const calls = new Map<number, AbortController>();
const listings = new Map<number, Listing>();
let errors: ErrorMessage[] = [];
let evicted: readonly string[] = [];
let lastListing = 0;
let statusAt = -Infinity;
let adapter: L2Adapter | undefined;

let moduleExports: Readonly<Record<string, unknown>> = {};

/** Serves the adapter that a module declares, until the host closes it or is gone. */
export async function serve(plugin: Readonly<Record<string, unknown>>): Promise<void> {
  moduleExports = plugin;
  for (;;) {
    const head = await reader.next();
    if (head === undefined) break;
    const body = new Uint8Array(head.bodyBytes);
    if (!await reader.read(body)) break;
    const { id, request } = head.header as { id?: number; request: Request };
    if (id === undefined) void tell(request);
    else void answer(id, request, body);
  }
  await adapter?.[Symbol.asyncDispose]();
  Deno.exit(0);
}

/** Passes on a message that has no answer. An error goes into the next reply. */
async function tell(request: Request): Promise<void> {
  if (request.op === "unlock" || request.op === "touch") {
    try {
      await adapter?.[request.op]?.(request.keys.map(decodeKey));
    } catch (error) {
      addError({ ...encodeError(error), operation: request.op });
    }
  } else if (request.op === "endList") {
    void listings.get(request.list)?.objects.return();
    listings.delete(request.list);
  }
}

async function answer(id: number, request: Request, body: Uint8Array<ArrayBuffer>): Promise<void> {
  const controller = new AbortController();
  calls.set(id, controller);
  try {
    const { value, parts } = await run(request, body, controller.signal);
    await reply({ id, value }, parts);
  } catch (cause) {
    await reply({ id, error: encodeError(cause) });
  } finally {
    calls.delete(id);
  }
}

async function reply(reply: PluginReply, parts?: AnswerWithBytes["parts"]): Promise<void> {
  const status = dueStatus();
  const reports = { errors, evicted: evicted.slice(0, MAX_EVICTED), status };
  errors = [];
  evicted = evicted.slice(MAX_EVICTED);
  await writer.write({ ...reply, reports }, parts);
}

function dueStatus(): Readonly<Record<string, unknown>> | undefined {
  if (performance.now() - statusAt < STATUS_MS) return undefined;
  statusAt = performance.now();
  try {
    return boundStatus(adapter?.reportStatus?.());
  } catch (error) {
    addError({ ...encodeError(error), operation: "status" });
    return undefined;
  }
}

/** Keeps an error for the next reply. */
function addError(error: ErrorMessage): void {
  if (errors.length < MAX_ERRORS) errors.push(error);
}

async function run(
  request: Request,
  body: Uint8Array<ArrayBuffer>,
  signal: AbortSignal,
): Promise<AnswerWithBytes> {
  if (request.op === "open") return { value: await open(request) };
  if (request.op === "abort") {
    calls.get(request.call)?.abort();
    return {};
  }
  if (adapter === undefined) throw new Error("The adapter is not open");
  switch (request.op) {
    case "store": {
      const objects = objectsOf(request, body);
      const { stored, bytes, sizes } = await adapter.store(objects, { signal });
      return { value: { done: stored.indices(), bytes, sizes } };
    }
    case "lookupAndLock": {
      const keys = request.keys.map(decodeKey);
      const found = await adapter.lookupAndLock(keys, { prefix: request.prefix, signal });
      return { value: { done: found.indices() } };
    }
    case "load": {
      const { sizes, allowShorter } = request;
      const objects = objectsOf(request, new Uint8Array(sizes.reduce((a, b) => a + b, 0)));
      const faults: [number, TrailerFault][] = [];
      const onLoaded = (index: number, fault?: TrailerFault): void => {
        if (fault !== undefined) faults.push([index, fault]);
      };
      const loaded = await adapter.load(objects, { signal, onLoaded, allowShorter });
      const parts = loaded.gather(objects).flatMap(({ parts }) => parts);
      return { value: { done: loaded.indices(), faults }, parts };
    }
    case "delete": {
      const keys = request.keys.map(decodeKey);
      const none = { deleted: new Bitmap(keys.length), bytes: 0 };
      const { deleted, bytes } = await adapter.delete?.(keys, { signal }) ?? none;
      return { value: { done: deleted.indices(), bytes } };
    }
    case "list": {
      const listing: Listing = {
        keyless: 0,
        hasEnded: false,
        objects: listAll(adapter, request.model, () => listing.keyless++),
      };
      listings.set(++lastListing, listing);
      return { value: lastListing };
    }
    case "next":
      return { value: await listMore(request.list) };
    case "usage":
      return { value: await adapter.usage?.({ signal }) };
    case "close":
      closing.abort();
      await adapter[Symbol.asyncDispose]();
      return {};
    default:
      throw new Error(`Unknown operation ${request.op}`);
  }
}

async function open({ params, l1Memory }: Request & { readonly op: "open" }): Promise<unknown> {
  const module = declared(moduleExports);
  adapter = await module.create(parseAdapterConfig(module, params), {
    l1Memory,
    clock: systemClock,
    signal: closing.signal,
    onError: (error) => addError(encodeError(error)),
    onEvicted: (keys) => evicted = evicted.concat(encodeKeys(keys)),
  });
  const { capabilities } = adapter;
  const methods = OPTIONAL.filter((name) => adapter?.[name] !== undefined);
  return { type: module.type, capabilities, methods };
}

function declared({ default: exported }: Readonly<Record<string, unknown>>): L2AdapterModule {
  try {
    return asAdapterModule(exported);
  } catch (cause) {
    throw new ConfigError({
      subject: "plugin",
      key: "create()",
      expected: "a usable adapter module",
      received: String(cause),
    });
  }
}

/** The objects of a request, with consecutive parts of `bytes`. */
function objectsOf(
  { keys, sizes }: { readonly keys: readonly string[]; readonly sizes: readonly number[] },
  bytes: Uint8Array<ArrayBuffer>,
): AdapterObject[] {
  let end = 0;
  return keys.map((key, i) => {
    const byteLength = sizes[i] ?? 0;
    end += byteLength;
    return { key: decodeKey(key), parts: [bytes.subarray(end - byteLength, end)], byteLength };
  });
}

async function* listAll(
  adapter: L2Adapter,
  model: string | undefined,
  onKeyless: () => void,
): AsyncGenerator<ListedObject, void> {
  const options = { signal: closing.signal, onKeyless, ...(model !== undefined && { model }) };
  yield* adapter.list?.(options) ?? [];
}

async function listMore(list: number): Promise<ListAnswer> {
  const found: ListedObject[] = [];
  const listing = listings.get(list);
  if (listing === undefined) return { objects: [], keyless: 0, isDone: true };
  const startedAt = performance.now();
  while (!listing.hasEnded && found.length + listing.keyless < MAX_LISTED) {
    const next = await listing.objects.next();
    if (next.done) listing.hasEnded = true;
    else found.push(next.value);
    if (performance.now() - startedAt > LISTING_MS) break;
  }
  const keyless = Math.min(listing.keyless, MAX_LISTED - found.length);
  listing.keyless -= keyless;
  const keys = encodeKeys(found.map(({ key }) => key));
  const objects = found.map((object, i) => ({ ...object, key: keys[i] as string }));
  return { objects, keyless, isDone: listing.hasEnded && listing.keyless === 0 };
}
