import type { ObjectKey } from "../keys/object_key.ts";

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
export function reasonOf(cause: unknown): string {
  try {
    return String(cause instanceof Error ? cause.message : cause);
  } catch {
    return Object.prototype.toString.call(cause);
  }
}
