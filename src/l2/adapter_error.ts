import type { ObjectKey } from "../keys/object_key.ts";
import { typeInWords } from "../runtime/options.ts";

/** What a {@linkcode ConfigError} is about. */
export interface ConfigErrorDetails {
  /** Type of the adapter, or the part of the cache. */
  readonly adapter: string;
  /** The configuration key; left out if it is about the whole. */
  readonly key?: string;
  /** What was expected. */
  readonly expected: string;
  /** What was received. Of objects and lists only the type and the keys are shown and kept. */
  readonly received: unknown;
  /**
   * Only its type is shown and kept: it could be a secret. Always so for a key that ends with `_env`.
   * @default {false}
   */
  readonly hidden?: boolean;
  /** What to read next. */
  readonly help?: string;
  /** The error behind it. */
  readonly cause?: unknown;
}

/** A configuration that cannot work; thrown at start. */
export class ConfigError extends Error {
  /** The name of the class. */
  override readonly name = "ConfigError";
  /** Type of the adapter, or the part of the cache. */
  readonly adapter: string;
  /** The configuration key. */
  readonly key: string | undefined;
  /** What was expected. */
  readonly expected: string;
  /** What was received; of what could be a secret, only its type, in words. */
  readonly received: unknown;

  /** Composes the message from the details. */
  constructor(details: ConfigErrorDetails) {
    const { adapter, key, expected, received, help, cause } = details;
    // Where the name of a variable belongs, the secret itself may stand by mistake.
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

/** What an {@linkcode AdapterError} is about. */
export interface AdapterErrorDetails {
  /** Type of the adapter. */
  readonly adapter: string;
  /** What it was doing. */
  readonly operation: string;
  /** With which object. */
  readonly key?: ObjectKey;
  /** What went wrong. */
  readonly cause: unknown;
}

/** A failure of a storage adapter; it costs objects, never the host. */
export class AdapterError extends Error {
  /** The name of the class. */
  override readonly name = "AdapterError";
  /** Type of the adapter. */
  readonly adapter: string;
  /** What it was doing. */
  readonly operation: string;
  /** With which object. */
  readonly key: ObjectKey | undefined;
  /** The system's name for the error, such as `ENOSPC`. */
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

/** The system's name for an error: `code` where it has one, else the name of its class. */
function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const code: unknown = Reflect.get(error, "code");
  if (typeof code === "string") return code;
  return error.name === "Error" ? undefined : error.name;
}

/** What a thrown value says. Anything can be thrown, also what has no text. */
function reasonOf(cause: unknown): string {
  try {
    return String(cause instanceof Error ? cause.message : cause);
  } catch {
    return Object.prototype.toString.call(cause);
  }
}

/** What a message may show of a type in a configuration: nothing, unless it looks like one. */
export function receivedType(type: unknown): { received: unknown; hidden: boolean } {
  const isShown = typeof type === "string" && /^[a-z][a-z0-9_]{0,62}$/.test(type);
  return { received: type, hidden: !isShown };
}
