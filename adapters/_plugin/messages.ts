import {
  type AdapterCapabilities,
  AdapterError,
  type AdapterUsage,
  Bitmap,
  type ConfigError,
  type L1MemoryDescription,
  ObjectKey,
} from "../../src/adapter/contract.ts";
import { reasonOf } from "../../src/adapter/errors.ts";

/** Optional methods that an adapter may have. */
export const OPTIONAL = ["unlock", "touch", "delete", "list", "usage"] as const;
/** Name of an optional method. */
export type OptionalMethod = typeof OPTIONAL[number];

/** Max objects of a listing in one answer, with those left out. */
export const MAX_LISTED = 1_000;
/** Max evicted keys in one reply. */
export const MAX_EVICTED = 1_000;
/** Max errors in one reply. */
export const MAX_ERRORS = 100;
/** Longest text of an error. */
const MAX_TEXT = 1_000;
/** Longest status, in characters of JSON. */
const MAX_STATUS = 2 ** 16;
const MAX_STATUS_DEPTH = 8;

/** What the host asks. The bytes of a store are the body of its message. */
export type Request =
  | {
    readonly op: "open";
    readonly params: Readonly<Record<string, unknown>>;
    readonly l1Memory: L1MemoryDescription;
  }
  | { readonly op: "store"; readonly keys: readonly string[]; readonly sizes: readonly number[] }
  | { readonly op: "lookupAndLock"; readonly keys: readonly string[]; readonly prefix: boolean }
  | {
    readonly op: "load";
    readonly keys: readonly string[];
    readonly sizes: readonly number[];
    readonly allowShorter: boolean;
  }
  | { readonly op: "delete" | "unlock" | "touch"; readonly keys: readonly string[] }
  | { readonly op: "list"; readonly model?: string | undefined }
  | { readonly op: "next" | "endList"; readonly list: number }
  | { readonly op: "usage" | "close" }
  | { readonly op: "abort"; readonly call: number };

/** Answers by operation. The bytes of a load are the body of its message. */
export interface Answers {
  readonly open: OpenAnswer;
  readonly store: {
    readonly done: readonly number[];
    readonly bytes: number;
    readonly sizes?: readonly number[] | undefined;
  };
  readonly lookupAndLock: { readonly done: readonly number[] };
  readonly load: {
    readonly done: readonly number[];
    readonly faults: readonly (readonly [index: number, fault: string])[];
  };
  readonly delete: { readonly done: readonly number[]; readonly bytes: number };
  readonly list: number;
  readonly next: ListAnswer;
  readonly usage: AdapterUsage;
}

/** What an adapter says about itself once it is open. */
export interface OpenAnswer {
  readonly type: string;
  readonly capabilities: AdapterCapabilities;
  readonly methods: readonly OptionalMethod[];
}

/** Part of a listing. */
export interface ListAnswer {
  readonly objects: readonly {
    readonly key: string;
    readonly byteLength: number;
    readonly loadBytes?: number;
    readonly usedAt?: number;
  }[];
  /** Objects left out because their keys are unknown. */
  readonly keyless: number;
  /** Whether the listing has ended. */
  readonly isDone: boolean;
}

/** An error of the other process. */
export interface ErrorMessage {
  readonly message: string;
  readonly code?: string | undefined;
  readonly operation?: string | undefined;
  readonly key?: string | undefined;
  /** Details of a `ConfigError`. */
  readonly config?:
    | { readonly key: string | undefined; readonly expected: string; readonly received: string }
    | undefined;
}

/** What the adapter has reported since the last reply. */
export interface Reports {
  readonly errors: readonly ErrorMessage[];
  /** Keys of objects that it evicted by itself. */
  readonly evicted: readonly string[];
  /** Its status, if that was due. */
  readonly status?: Readonly<Record<string, unknown>> | undefined;
}

/** The reply to a request. */
export interface PluginReply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: ErrorMessage | undefined;
  readonly reports?: Reports | undefined;
}

/** Encodes keys. */
export function encodeKeys(keys: readonly ObjectKey[]): string[] {
  return keys.map((key) => key.toBytes().toBase64());
}

/**
 * Decodes a key.
 *
 * @throws {TypeError | RangeError | SyntaxError} If it is none.
 */
export function decodeKey(key: unknown): ObjectKey {
  return ObjectKey.fromBytes(Uint8Array.fromBase64(String(key)));
}

/**
 * Decodes the indices of a bitmap.
 *
 * @throws {TypeError} If they are not a list of indices below `length`.
 */
export function decodeBits(indices: unknown, length: number): Bitmap {
  const isIndex = (index: unknown): boolean =>
    typeof index === "number" && Number.isInteger(index) && index >= 0 && index < length;
  if (!Array.isArray(indices) || !indices.every(isIndex)) {
    throw new TypeError(`The answer is no list of indices below ${length}`);
  }
  return Bitmap.of(length, indices);
}

/** The status of an adapter; one that is too large or too deep is replaced. */
export function boundStatus(status: unknown): Readonly<Record<string, unknown>> {
  if (typeof status !== "object" || status === null) return {};
  const fits = isShallow(status, MAX_STATUS_DEPTH) && JSON.stringify(status).length <= MAX_STATUS;
  return fits ? { ...status } : { status: "too large" };
}

function isShallow(value: unknown, depth: number): boolean {
  if (typeof value !== "object" || value === null) return true;
  return depth > 0 && Object.values(value).every((inner) => isShallow(inner, depth - 1));
}

/** Checks an error of the other process, and shortens what it says. */
export function decodeError(given: unknown): ErrorMessage {
  const { message, code, operation, key, config } = fieldsOf(given);
  const details = config === undefined ? undefined : fieldsOf(config);
  return {
    message: textOf(message) ?? "no message",
    code: textOf(code),
    operation: textOf(operation),
    key: typeof key === "string" ? key : undefined,
    config: details && {
      key: textOf(details["key"]),
      expected: textOf(details["expected"]) ?? "",
      received: textOf(details["received"]) ?? "",
    },
  };
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? { ...value } : {};
}

function textOf(value: unknown): string | undefined {
  if (typeof value !== "string") return undefined;
  return value.length > MAX_TEXT ? `${value.slice(0, MAX_TEXT)}…` : value;
}

/** Describes an error, for the other process. */
export function encodeError(cause: unknown): ErrorMessage {
  return decodeError(describeError(cause));
}

function describeError(cause: unknown): ErrorMessage {
  if (!(cause instanceof Error)) return { message: reasonOf(cause) };
  const { message } = cause;
  const code: unknown = Reflect.get(cause, "code");
  if (cause.name === "ConfigError") {
    const { key, expected, received } = cause as ConfigError;
    return { message, config: { key, expected, received: String(received) } };
  }
  if (cause instanceof AdapterError) {
    const { operation, key } = cause;
    return {
      message: reasonOf(cause.cause),
      code: cause.code,
      operation,
      key: key && encodeKeys([key])[0],
    };
  }
  return { message, code: typeof code === "string" ? code : undefined };
}
