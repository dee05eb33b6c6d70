/** Names with at most this edit distance are taken for typing errors. */
const MAX_EDITS = 2;

/**
 * Throws unless a value is an object whose keys are all known.
 *
 * @param what Name of the object in messages: `put() options`.
 * @param known The allowed keys.
 * @throws {TypeError} If the value is not an object, or has an unknown key. The message suggests
 * the nearest known key.
 */
export function checkOptionKeys(
  what: string,
  options: unknown,
  known: readonly string[],
): asserts options is object {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new TypeError(`${what} must be an object: received ${typeInWords(options)}`);
  }
  const key = Object.keys(options).find((key) => !known.includes(key));
  if (key === undefined) return;
  const nearest = nearestName(key, known);
  const hint = nearest === undefined ? `expected ${known.join(", ")}` : `did you mean ${nearest}?`;
  throw new TypeError(`${what} must not have the key ${JSON.stringify(key)}: ${hint}`);
}

/**
 * Throws if a key is present but `undefined` or `null`. For keys whose default is shared, such as
 * the empty salt: a value lost in the caller's code must not select the shared default.
 *
 * @param what Name of the object in messages.
 * @param keys The keys that must be absent or have a value.
 * @throws {TypeError} If one of them is `undefined` or `null`.
 */
export function checkNotNullish(what: string, options: object, keys: readonly string[]): void {
  for (const key of keys) {
    const value = (options as Readonly<Record<string, unknown>>)[key];
    if ((value !== undefined && value !== null) || !(key in options)) continue;
    throw new TypeError(
      `${what} must have a value for ${key}, or not have the key: received ${value}`,
    );
  }
}

/**
 * Throws unless a value is a string with a UTF-8 encoding of its own: all lone surrogates are
 * encoded as U+FFFD, so different strings would share a name or a hash.
 *
 * @throws {TypeError} If it is not.
 */
export function checkString(what: string, value: unknown): asserts value is string {
  if (typeof value !== "string") {
    throw new TypeError(`${what} must be a string: received ${typeInWords(value)}`);
  }
  if (!value.isWellFormed()) throw new TypeError(`${what} must be well-formed Unicode`);
}

/** Describes a value for a message: a number by its value, anything else by its type. */
export function numberInWords(value: unknown): string {
  return typeof value === "number" ? String(value) : typeInWords(value);
}

/** The known name closest to a mistyped one, or `undefined` if none is close. */
export function nearestName(name: string, known: readonly string[]): string | undefined {
  const plain = normalize(name);
  let [nearest, fewest]: [string | undefined, number] = [undefined, MAX_EDITS + 1];
  for (const candidate of known) {
    const other = normalize(candidate);
    const between = plain === other ? 0 : editsBetween(plain, other);
    // A name contained in the other one ranks behind any typing error.
    const isPart = isPartOf(plain, other);
    const edits = isPart ? Math.min(between, MAX_EDITS + 0.5) : between;
    // If more than half of the characters differ, it is not a typing error.
    const isLikely = isPart || 2 * edits <= other.length;
    if (isLikely && edits < fewest) [nearest, fewest] = [candidate, edits];
  }
  return nearest;
}

/** Describes the type of a value. Never shows the value, which may be a secret. */
export function typeInWords(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return value.length === 0 ? "an empty array" : "an array";
  if (typeof value !== "object") return withArticle(typeof value);
  const name: unknown = Object.getPrototypeOf(value)?.constructor?.name;
  if (typeof name === "string" && name !== "Object" && name !== "") return withArticle(name);
  const keys = Object.keys(value);
  return keys.length === 0 ? "an empty object" : `an object with ${keys.slice(0, 8).join(", ")}`;
}

function withArticle(noun: string): string {
  return `${/^[aeio]/i.test(noun) ? "an" : "a"} ${noun}`;
}

/** Drops case and separators, so that `base_path` and `basePath` compare equal. */
function normalize(name: string): string {
  return name.slice(0, 64).replaceAll(/[-_\s]/g, "").toLowerCase();
}

/** Whether one name contains the other; names below 4 characters are ignored. */
function isPartOf(a: string, b: string): boolean {
  return Math.min(a.length, b.length) >= 4 && (a.includes(b) || b.includes(a));
}

/** Levenshtein distance. */
function editsBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1;
      const [left = 0, above = 0, diagonal = 0] = [next[j - 1], row[j], row[j - 1]];
      next.push(Math.min(left + 1, above + 1, diagonal + change));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

/** Constraints on the value of one option. */
export type OptionRule =
  | NumberRule
  /** A nested options object. */
  | { readonly type: "object"; readonly rules: Readonly<Record<string, OptionRule>> }
  /** Any value for which `accepts` returns `true`. */
  | {
    readonly type: "value";
    readonly accepts: (value: unknown) => boolean;
    readonly expected: string;
  };

/**
 * Bounds of a numeric option. `Infinity` is allowed unless there is a `maximum` or a `multipleOf`.
 */
export interface NumberBounds {
  /** Smallest allowed value. */
  readonly minimum?: number;
  /** Largest allowed value. */
  readonly maximum?: number;
  /** The value must be an integer multiple of this. */
  readonly multipleOf?: number;
}

/** Constraints on a numeric option. */
export interface NumberRule extends NumberBounds {
  /** The type. */
  readonly type: "number";
  /** Default value. */
  readonly default?: number;
}

/** A rule for each key of an options type. A missing rule is a compile error. */
export type OptionRules<Options> = { readonly [Key in keyof Required<Options>]: OptionRule };

/**
 * Checks an options object against its rules and fills in numeric defaults. `undefined` values
 * count as left out.
 *
 * @param what Name of the object in messages: `flush() options`.
 * @param prefix Prefix of keys in messages: `store.`.
 * @throws {TypeError} If it is not an object, has an unknown key, or a value has the wrong type.
 * @throws {RangeError} If a number is out of range.
 */
export function readOptions<Options extends object>(
  what: string,
  options: Options,
  rules: OptionRules<Options>,
  prefix = "",
): Options {
  const table: Readonly<Record<string, OptionRule>> = rules;
  checkOptionKeys(what, options, Object.keys(table));
  const values: Record<string, unknown> = {};
  for (const [key, rule] of Object.entries(table)) {
    const given: unknown = Reflect.get(options, key);
    const value = given === undefined ? defaultOf(rule) : given;
    if (value === undefined) continue;
    const name = prefix + key;
    checkValue(name, value, rule);
    values[key] = rule.type === "object"
      ? readOptions(name, value as object, rule.rules, `${name}.`)
      : value;
  }
  return values as Options;
}

function defaultOf(rule: OptionRule): unknown {
  if (rule.type === "number") return rule.default;
  // An absent nested object is read as an empty one, so that its defaults are filled in.
  return rule.type === "object" ? {} : undefined;
}

function checkValue(name: string, value: unknown, rule: OptionRule): void {
  if (rule.type === "number") return checkNumber(name, value, rule);
  // The caller reads it with its own rules, which checks that it is an object.
  if (rule.type === "object") return;
  if (rule.accepts(value)) return;
  throw new TypeError(`${name} must be ${rule.expected}: received ${typeInWords(value)}`);
}

/**
 * Throws unless a value is a number within bounds.
 *
 * @param name Name of the value in messages.
 * @throws {TypeError} If it is not a number.
 * @throws {RangeError} If it is out of bounds.
 */
export function checkNumber(
  name: string,
  value: unknown,
  bounds: NumberBounds,
): asserts value is number {
  const { minimum = -Infinity, maximum = Infinity, multipleOf } = bounds;
  const isMultiple = multipleOf === undefined ||
    (Number.isSafeInteger(value) && Number(value) % multipleOf === 0);
  const isNumber = typeof value === "number";
  if (isNumber && value >= minimum && value <= maximum && isMultiple) return;
  const message = `${name} must be ${describeBounds(bounds)}: received ${numberInWords(value)}`;
  throw isNumber ? new RangeError(message) : new TypeError(message);
}

function describeBounds({ minimum, maximum, multipleOf }: NumberBounds): string {
  const kind = multipleOf === undefined
    ? "a number"
    : multipleOf === 1
    ? "an integer"
    : `a multiple of ${multipleOf}`;
  if (minimum !== undefined && maximum !== undefined) {
    return `${kind} from ${minimum} to ${maximum}`;
  }
  if (minimum !== undefined) return `${kind} of at least ${minimum}`;
  return maximum === undefined ? kind : `${kind} of at most ${maximum}`;
}

/** Rule for a string option. */
export const STRING: OptionRule = {
  type: "value",
  accepts: (value) => typeof value === "string",
  expected: "a string",
};

/** Rule for an option that takes an `AbortSignal`. */
export const SIGNAL: OptionRule = {
  type: "value",
  accepts: (value) => value instanceof AbortSignal,
  expected: "an AbortSignal",
};
