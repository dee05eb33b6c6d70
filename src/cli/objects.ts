import type { ListedObject } from "../adapter/contract.ts";
import { failFor } from "../base/config_error.ts";
import { validateCacheSalt, validateModelName } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { CommandArgs, OptionDef } from "./command.ts";
import { parseAge, parseBytes } from "./quantities.ts";
import { lastErrorOf } from "./stores.ts";

const fail = failFor("kvtier");

/** Options that choose objects. */
export const filterArgs = {
  model: { type: "string", valueHint: "MODEL", description: "Only objects of this model" },
  salt: {
    type: "string",
    valueHint: "SALT",
    canBeEmpty: true,
    description: "Only objects under this cache salt; --salt= for objects without one",
  },
  "older-than": {
    type: "string",
    valueHint: "AGE",
    description: "Only objects not stored or used for this long, like 30d or 12h",
  },
  "newer-than": {
    type: "string",
    valueHint: "AGE",
    description: "Only objects stored or used within this time",
  },
  "min-size": {
    type: "string",
    valueHint: "SIZE",
    description: "Only objects of at least this size",
  },
  "max-size": {
    type: "string",
    valueHint: "SIZE",
    description: "Only objects of at most this size",
  },
} as const satisfies Record<string, OptionDef>;

/** Chooses objects. */
export interface ObjectFilter {
  /** Model to which the listing is restricted. */
  readonly model?: string | undefined;
  readonly matches: (object: ListedObject) => boolean;
}

/** The filter that chooses every object. */
export const ALL_OBJECTS: ObjectFilter = { matches: () => true };

/**
 * Reads {@linkcode filterArgs}. Objects whose last use is unknown match no age.
 *
 * @throws {ConfigError} If a value is not valid.
 */
export function readFilter({ values }: CommandArgs): ObjectFilter {
  const { model, salt } = values;
  checked("--model", model, validateModelName);
  checked("--salt", salt, validateCacheSalt);
  const now = Date.now();
  const number = (option: string, parse: typeof parseAge, otherwise: number): number => {
    const text = values[option];
    return text === undefined ? otherwise : parse(option, text);
  };
  const minAge = number("older-than", parseAge, -Infinity);
  const maxAge = number("newer-than", parseAge, Infinity);
  const minBytes = number("min-size", parseBytes, 0);
  const maxBytes = number("max-size", parseBytes, Infinity);
  const hasAge = minAge > -Infinity || maxAge < Infinity;
  return {
    model,
    matches(object) {
      const { key, byteLength } = object;
      if (model !== undefined && key.model !== model) return false;
      if (salt !== undefined && key.cacheSalt !== salt) return false;
      if (byteLength < minBytes || byteLength > maxBytes) return false;
      if (!hasAge) return true;
      const age = ageOf(object, now);
      return age !== undefined && age >= minAge && age <= maxAge;
    },
  };
}

/** Milliseconds since the last use of an object; 0 for times in the future, `undefined` if unknown. */
export function ageOf(object: ListedObject, now: number): number | undefined {
  const usedAt = useOf(object);
  return usedAt === undefined ? undefined : Math.max(0, now - usedAt);
}

/** Time of the last use as an adapter reports it, unless that is no time. */
export function useOf({ usedAt }: ListedObject): number | undefined {
  return Number.isFinite(usedAt) && Number(usedAt) > 0 ? usedAt : undefined;
}

/** Lists the chosen objects of an adapter, and records what the listing lacks. */
export class ChosenObjects {
  /** Whether all objects were listed. */
  isComplete = true;
  /** Number of objects whose key is unknown. */
  keyless = 0;
  readonly #guard: AdapterGuard;
  readonly #filter: ObjectFilter;
  readonly #signal: AbortSignal;

  constructor(guard: AdapterGuard, filter: ObjectFilter, signal: AbortSignal) {
    this.#guard = guard;
    this.#filter = filter;
    this.#signal = signal;
  }

  /** The objects, in the order of the adapter. */
  async *[Symbol.asyncIterator](): AsyncGenerator<ListedObject, void> {
    const { model, matches } = this.#filter;
    const options = {
      signal: this.#signal,
      onIncomplete: () => void (this.isComplete = false),
      onKeyless: () => void this.keyless++,
      ...(model === undefined ? {} : { model }),
    };
    for await (const object of this.#guard.list(options)) if (matches(object)) yield object;
    this.#signal.throwIfAborted();
  }

  /** What the listing lacks, as sentences. */
  get problems(): string[] {
    const { keyless, isComplete } = this;
    return [
      ...isComplete ? [] : [`Not all objects could be listed: ${lastErrorOf(this.#guard)}`],
      ...keyless === 0 ? [] : [`${keyless} objects do not tell their keys and were left out`],
    ];
  }
}

function checked(
  option: string,
  value: string | undefined,
  check: (value: string) => void,
): void {
  if (value === undefined) return;
  try {
    check(value);
  } catch (error) {
    fail(option, (error as Error).message, value, error);
  }
}
