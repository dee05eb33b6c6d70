import { typeInWords } from "./options.ts";

/** Details of a {@linkcode ConfigError}. */
export interface ConfigErrorDetails {
  /** What is configured: the type of an adapter, or a part of the cache. */
  readonly subject: string;
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

/** Details with the name that {@linkcode ConfigErrorDetails.subject} had before. */
type FormerDetails = Omit<ConfigErrorDetails, "subject"> & {
  /** @deprecated Use `subject`. */
  readonly adapter: string;
};

/** Thrown at startup for a configuration that is not valid. */
export class ConfigError extends Error {
  /** Name of the class. */
  override readonly name = "ConfigError";
  /** What is configured: the type of an adapter, or a part of the cache. */
  readonly subject: string;
  /** Configuration key. */
  readonly key: string | undefined;
  /** Description of valid values. */
  readonly expected: string;
  /** Received value; only its type, in words, if it could be a secret. */
  readonly received: unknown;

  /** Composes the message from the details. */
  constructor(details: ConfigErrorDetails | FormerDetails) {
    const subject = "subject" in details ? details.subject : details.adapter;
    const { key, expected, received, help, cause } = details;
    // A secret may have been put by mistake where the name of a variable belongs.
    const hidden = details.hidden || key?.endsWith("_env");
    const place = key === undefined ? subject : `${subject}: ${key}`;
    const isOpaque = hidden || (typeof received === "object" && received !== null);
    const kept = isOpaque ? typeInWords(received) : received;
    const shown = typeof received === "string" && !isOpaque ? `"${received}"` : String(kept);
    const text = `${place}: expected ${expected}: received ${shown}`;
    super(help === undefined ? text : `${text}\n\n${help}`, cause === undefined ? {} : { cause });
    this.subject = subject;
    this.key = key;
    this.expected = expected;
    this.received = kept;
  }

  /**
   * What is configured.
   *
   * @deprecated Use {@linkcode ConfigError.subject}.
   */
  get adapter(): string {
    return this.subject;
  }
}

/** Throws a {@linkcode ConfigError} about a configuration key. */
export type FailConfig = (
  key: string,
  expected: string,
  received: unknown,
  cause?: unknown,
) => never;

/** Creates a function that throws a {@linkcode ConfigError} about a key of `subject`. */
export function failFor(subject: string): FailConfig {
  return (key, expected, received, cause) => {
    throw new ConfigError({ subject, key, expected, received, cause });
  };
}

/** Hides a configured type in messages unless it looks like a type, since it could be a secret. */
export function receivedType(type: unknown): { received: unknown; hidden: boolean } {
  const isShown = typeof type === "string" && /^[a-z][a-z0-9_]{0,62}$/.test(type);
  return { received: type, hidden: !isShown };
}
