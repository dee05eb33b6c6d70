import {
  type AdapterCapabilities,
  type AdapterEnvironment,
  AdapterError,
  Bitmap,
  ConfigError,
  type L2Adapter,
  type ListedObject,
  type ListOptions,
} from "../../src/adapter/contract.ts";
import type { TrailerFault } from "../../src/adapter/object_trailer.ts";
import { untilAborted } from "../../src/base/abort.ts";
import { abortAfter } from "../../src/base/clock.ts";
import { messageOf } from "../_shared/errno.ts";
import { IsolatedProcess, RemoteError } from "./isolated_process.ts";
import {
  boundStatus,
  decodeBits,
  decodeError,
  decodeKey,
  encodeKeys,
  type ErrorMessage,
  type ListAnswer,
  MAX_ERRORS,
  MAX_LISTED,
  OPTIONAL,
  type Reports,
} from "./messages.ts";

/** Time within which the adapter must open, in milliseconds; below the limit of the cache. */
const OPEN_MS = 25_000;
/** Time within which the adapter must close, in milliseconds. */
const CLOSE_MS = 4_000;

/** Longest type of an adapter. */
const MAX_TYPE = 100;

/** Faults that an adapter can report. */
const FAULTS: Readonly<Record<TrailerFault, true>> = {
  "magic": true,
  "version": true,
  "trailer-checksum": true,
  "length": true,
  "key": true,
  "layout": true,
  "payload-checksum": true,
  "transform": true,
};

/** What {@linkcode openIsolated} needs. */
export interface IsolatedOptions {
  /** Starts the process. */
  readonly command: Deno.Command;
  /** Configuration of the adapter. */
  readonly params: Readonly<Record<string, unknown>>;
  /** What errors call the adapter. */
  readonly subject: string;
  readonly environment: AdapterEnvironment;
}

/** An adapter in a process of its own. */
export interface IsolatedAdapter {
  readonly adapter: L2Adapter;
  /** Type of the adapter. */
  readonly type: string;
}

/**
 * Starts a process and opens an adapter in it. When the process ends or is killed, the adapter is
 * dead: its calls reject at once.
 *
 * @throws {ConfigError} If the adapter rejects its configuration.
 * @throws {Error} If it does not open for another reason.
 */
export async function openIsolated(options: IsolatedOptions): Promise<IsolatedAdapter> {
  const { command, params, subject, environment } = options;
  const { clock, l1Memory, signal, onError, onEvicted } = environment;
  let status: Readonly<Record<string, unknown>> = {};
  const process = new IsolatedProcess({
    command,
    clock,
    onReports({ errors, evicted, status: latest }: Reports) {
      for (const error of errors.slice(0, MAX_ERRORS)) onError(errorOf(subject, error));
      if (evicted.length > 0) onEvicted?.(evicted.map(decodeKey));
      if (latest !== undefined) status = boundStatus(latest);
    },
    onDeath: (cause) =>
      onError(new AdapterError({ adapter: subject, operation: "process", cause })),
  });
  using limit = abortAfter(clock, OPEN_MS, new Error(`Not open within ${OPEN_MS} ms`));
  const stop = AbortSignal.any([limit.signal, signal]);
  try {
    const opening = process.ask({ op: "open", params, l1Memory });
    const { type, capabilities, methods } = await untilAborted(stop, opening);
    const adapter = remoteAdapter(process, capabilitiesIn(capabilities), () => status);
    for (const name of OPTIONAL) if (!methods.includes(name)) delete adapter[name];
    return { type: String(type).slice(0, MAX_TYPE), adapter };
  } catch (cause) {
    await process.close(0);
    const details = cause instanceof RemoteError ? cause.details.config : unusable(cause);
    if (details === undefined) throw cause;
    const { key, expected, received } = details;
    throw new ConfigError({ subject, expected, received, ...(key !== undefined && { key }) });
  }
}

/** Explains that the module could not even be loaded. */
function unusable(cause: unknown): ErrorMessage["config"] {
  const received = `${messageOf(cause)} (its standard error may say why)`;
  return { key: "create()", expected: "a usable adapter module", received };
}

/** An adapter that passes each call to the process. */
function remoteAdapter(
  process: IsolatedProcess,
  capabilities: AdapterCapabilities,
  status: () => Readonly<Record<string, unknown>>,
): L2Adapter {
  return {
    capabilities,
    async store(objects, { signal }) {
      const keys = encodeKeys(objects.map(({ key }) => key));
      const sizes = objects.map(({ byteLength }) => byteLength);
      const parts = objects.flatMap((object) => object.parts);
      const answer = await process.ask({ op: "store", keys, sizes }, { parts, signal });
      const { done, bytes, sizes: stored } = answer;
      return { stored: decodeBits(done, keys.length), bytes, ...(stored && { sizes: stored }) };
    },
    async lookupAndLock(keys, { prefix, signal }) {
      const request = { op: "lookupAndLock", keys: encodeKeys(keys), prefix } as const;
      return decodeBits((await process.ask(request, { signal })).done, keys.length);
    },
    async load(objects, { signal, onLoaded, allowShorter = false }) {
      const keys = encodeKeys(objects.map(({ key }) => key));
      const sizes = objects.map(({ byteLength }) => byteLength);
      const loaded = { done: new Bitmap(objects.length) };
      const { faults } = await process.ask({ op: "load", keys, sizes, allowShorter }, {
        signal,
        into({ done }) {
          loaded.done = decodeBits(done, objects.length);
          return loaded.done.gather(objects).flatMap(({ parts }) => parts);
        },
      });
      for (const [index, name] of faults.slice(0, objects.length)) {
        if (Object.hasOwn(FAULTS, name)) onLoaded?.(index, name as TrailerFault);
      }
      return loaded.done;
    },
    unlock: (keys) => process.tell({ op: "unlock", keys: encodeKeys(keys) }),
    touch: (keys) => process.tell({ op: "touch", keys: encodeKeys(keys) }),
    async delete(keys, { signal }) {
      const answer = await process.ask({ op: "delete", keys: encodeKeys(keys) }, { signal });
      return { deleted: decodeBits(answer.done, keys.length), bytes: answer.bytes };
    },
    list: (options) => listRemote(process, options),
    usage: ({ signal }) => process.ask({ op: "usage" }, { signal }),
    reportStatus: () => ({ ...status(), ...processStatus(process.death) }),
    [Symbol.asyncDispose]: () => process.close(CLOSE_MS),
  };
}

function processStatus(death: Error | undefined): Readonly<Record<string, unknown>> {
  return death === undefined
    ? { process: "running" }
    : { process: death.message, problems: [death.message] };
}

async function* listRemote(
  process: IsolatedProcess,
  { model, signal, onKeyless }: ListOptions,
): AsyncGenerator<ListedObject, void> {
  const list = await process.ask({ op: "list", model }, { signal });
  try {
    for (let isDone = false; !isDone && !signal.aborted;) {
      const answer = await process.ask({ op: "next", list }, { signal });
      const objects = listedIn(answer);
      for (let i = 0; i < answer.keyless; i++) onKeyless?.();
      yield* objects;
      isDone = answer.isDone;
    }
  } finally {
    process.tell({ op: "endList", list });
  }
}

/**
 * The objects of a part of a listing.
 *
 * @throws {TypeError} If the part is not valid.
 */
function listedIn({ objects, keyless }: ListAnswer): ListedObject[] {
  if (!(keyless >= 0 && keyless + objects.length <= MAX_LISTED)) {
    throw new TypeError(`The answer is no list of at most ${MAX_LISTED} objects`);
  }
  return objects.map(({ key, byteLength, loadBytes, usedAt }) => ({
    key: decodeKey(key),
    byteLength,
    ...(isCount(loadBytes) && { loadBytes }),
    ...(isCount(usedAt) && { usedAt }),
  }));
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

/** Known capabilities, as far as they have the right types. */
function capabilitiesIn(given: AdapterCapabilities): AdapterCapabilities {
  const flags = [
    "shared",
    "durable",
    "unsealed",
    "evicts",
    "acceptsShortObjects",
    "variableLength",
  ];
  const numbers = ["maxObjectBytes", "preferredBytesInFlight"];
  const known = Object.entries(given).filter(([name, value]) =>
    (flags.includes(name) && typeof value === "boolean") ||
    (numbers.includes(name) && isCount(value) && value > 0)
  );
  return Object.fromEntries(known);
}

function errorOf(subject: string, given: ErrorMessage): AdapterError {
  const { message, code, operation, key } = decodeError(given);
  return new AdapterError({
    adapter: subject,
    operation: operation ?? "report",
    cause: Object.assign(new Error(message), code === undefined ? {} : { code }),
    ...(key !== undefined && { key: decodeKey(key) }),
  });
}
