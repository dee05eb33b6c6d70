import type { ObjectKey } from "../keys/object_key.ts";
import { typeInWords } from "../runtime/options.ts";

/** Details of a {@linkcode ConfigError}. */
export interface ConfigErrorDetails {
  /** Subject of the error: the type of the adapter, or the part of the cache. */
  readonly adapter: string;
  /** Configuration key; left out if the error concerns the whole configuration. */
  readonly key?: string;
  /** Description of valid values. */
  readonly expected: string;
  /** Received value. Of objects and lists, only the type and the keys are shown and kept. */
  readonly received: unknown;
  /**
   * Shows and keeps only the type of the received value, because it could be a secret. Always on
   * for a key that ends with `_env`.
   * @default {false}
   */
  readonly hidden?: boolean;
  /** Further help, appended to the message. */
  readonly help?: string;
  /** Underlying error. */
  readonly cause?: unknown;
}

/** Thrown at startup for a configuration that is not valid. */
export class ConfigError extends Error {
  /** Name of the class. */
  override readonly name = "ConfigError";
  /** Subject of the error: the type of the adapter, or the part of the cache. */
  readonly adapter: string;
  /** Configuration key. */
  readonly key: string | undefined;
  /** Description of valid values. */
  readonly expected: string;
  /** Received value; only its type, in words, if it could be a secret. */
  readonly received: unknown;

  /** Composes the message from the details. */
  constructor(details: ConfigErrorDetails) {
    const { adapter, key, expected, received, help, cause } = details;
    // A secret may have been put by mistake where the name of a variable belongs.
    const hidden = details.hidden || key?.endsWith("_env");
    const subject = key === undefined ? adapter : `${adapter}: ${key}`;
    const isOpaque = hidden || (typeof received === "object" && received !== null);
    const kept = isOpaque ? typeInWords(received) : received;
    const shown = typeof received === "string" && !isOpaque ? `"${received}"` : String(kept);
    const text = `${subject}: expected ${expected}: received ${shown}`;
    super(help === undefined ? text : `${text}\n\n${help}`, cause === undefined ? {} : { cause });
    this.adapter = adapter;
    this.key = key;
    this.expected = expected;
    this.received = kept;
  }
}

/** Throws a {@linkcode ConfigError} about a configuration key. */
export type FailConfig = (
  key: string,
  expected: string,
  received: unknown,
  cause?: unknown,
) => never;

/** Creates a function that throws a {@linkcode ConfigError} about a key of `adapter`. */
export function failFor(adapter: string): FailConfig {
  return (key, expected, received, cause) => {
    throw new ConfigError({ adapter, key, expected, received, cause });
  };
}

/** Details of an {@linkcode AdapterError}. */
export interface AdapterErrorDetails {
  /** Type of the adapter. */
  readonly adapter: string;
  /** Operation that failed. */
  readonly operation: string;
  /** Object of the operation. */
  readonly key?: ObjectKey;
  /** Underlying error. */
  readonly cause: unknown;
}

/** A failure of a storage adapter. It can cause misses but never stops the process. */
export class AdapterError extends Error {
  /** Name of the class. */
  override readonly name = "AdapterError";
  /** Type of the adapter. */
  readonly adapter: string;
  /** Operation that failed. */
  readonly operation: string;
  /** Object of the operation. */
  readonly key: ObjectKey | undefined;
  /** System error code, such as `ENOSPC`. */
  readonly code: string | undefined;

  /** Composes the message from the details. */
  constructor(details: AdapterErrorDetails) {
    const { adapter, operation, key, cause } = details;
    const code = errorCode(cause);
    const reason = reasonOf(cause);
    const label = code === undefined || reason.includes(code) ? "" : `${code}: `;
    super(`${adapter}: ${operation} failed: ${label}${reason}`, { cause });
    this.adapter = adapter;
    this.operation = operation;
    this.key = key;
    this.code = code;
  }
}

/** System code of an error: its `code` if it has one, otherwise the name of its class. */
function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const code: unknown = Reflect.get(error, "code");
  if (typeof code === "string") return code;
  return error.name === "Error" ? undefined : error.name;
}

/**
 * Message of a thrown value, which may be of any type, even one that cannot be converted to a
 * string.
 */
function reasonOf(cause: unknown): string {
  try {
    return String(cause instanceof Error ? cause.message : cause);
  } catch {
    return Object.prototype.toString.call(cause);
  }
}

/** Hides a configured type in messages unless it looks like a type, since it could be a secret. */
export function receivedType(type: unknown): { received: unknown; hidden: boolean } {
  const isShown = typeof type === "string" && /^[a-z][a-z0-9_]{0,62}$/.test(type);
  return { received: type, hidden: !isShown };
}
