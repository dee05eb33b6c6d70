/** Edits that still count as a typing error. */
const MAX_EDITS = 2;

/**
 * Throws unless a value is an object whose keys are all known.
 *
 * @param what How messages name the object: `put() options`.
 * @param known The keys it may have.
 * @throws {TypeError} If it is no plain object, or has an unknown key; names the nearest known one.
 */
export function checkOptionKeys(
  what: string,
  options: unknown,
  known: readonly string[],
): asserts options is object {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new TypeError(`${what} must be an object: received ${typeInWords(options)}`);
  }
  const unknown = unknownKeyIn(options, known);
  if (unknown !== undefined) throw new TypeError(`${what} ${unknown}`);
}

/**
 * Throws if a key is there without a value. Left out it means what everybody shares, which a value
 * that was lost on the way must not mean.
 *
 * @param what How messages name the object.
 * @param keys The keys that are left out or have a value.
 * @throws {TypeError} If one of them is `undefined` or `null`.
 */
export function checkNoneLost(what: string, options: object, keys: readonly string[]): void {
  for (const key of keys) {
    const value = (options as Readonly<Record<string, unknown>>)[key];
    if ((value !== undefined && value !== null) || !(key in options)) continue;
    throw new TypeError(
      `${what} must have a value for ${key}, or not have the key: received ${value}`,
    );
  }
}

/** A number as it is; of any other value the type. */
export function numberInWords(value: unknown): string {
  return typeof value === "number" ? String(value) : typeInWords(value);
}

/** What is wrong with the first unknown key of an object, in words; if all are known, `undefined`. */
export function unknownKeyIn(options: object, known: readonly string[]): string | undefined {
  const key = Object.keys(options).find((key) => !known.includes(key));
  if (key === undefined) return undefined;
  const nearest = nearestName(key, known);
  const hint = nearest === undefined ? `expected ${known.join(", ")}` : `did you mean ${nearest}?`;
  return `must not have the key ${JSON.stringify(key)}: ${hint}`;
}

/** The known name that a mistyped one was probably meant to be. */
export function nearestName(name: string, known: readonly string[]): string | undefined {
  const plain = plainly(name);
  let [nearest, fewest]: [string | undefined, number] = [undefined, MAX_EDITS + 1];
  for (const candidate of known) {
    const other = plainly(candidate);
    const between = plain === other ? 0 : editsBetween(plain, other);
    // A name that is part of the other is further off than a typing error.
    const isPart = isPartOf(plain, other);
    const edits = isPart ? Math.min(between, MAX_EDITS + 0.5) : between;
    // More than half of a short name is no typing error.
    const isLikely = isPart || 2 * edits <= other.length;
    if (isLikely && edits < fewest) [nearest, fewest] = [candidate, edits];
  }
  return nearest;
}

/** The type of a value in words: never the value itself, which may be a secret. */
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

/** Without case and separators: `base_path` and `basePath` are one name. */
function plainly(name: string): string {
  return name.slice(0, 64).replaceAll(/[-_\s]/g, "").toLowerCase();
}

/** Whether one name has all of the other, if that is long enough to say something. */
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

/** What the value of one option must be. */
export type OptionRule =
  | NumberRule
  /** An object with known keys of its own. */
  | { readonly type: "object"; readonly rules: Readonly<Record<string, OptionRule>> }
  /** Anything for which `accepts` holds; its own code checks the rest. */
  | {
    readonly type: "value";
    readonly accepts: (value: unknown) => boolean;
    readonly expected: string;
  };

/** Which numbers an option takes; `Infinity` too where there is no maximum and none must be whole. */
export interface NumberRange {
  /** Least value. */
  readonly minimum?: number;
  /** Greatest value. */
  readonly maximum?: number;
  /** The value is a whole multiple of this. */
  readonly multipleOf?: number;
}

/** A number that an option takes. */
export interface NumberRule extends NumberRange {
  /** The type. */
  readonly type: "number";
  /** Value if it is left out. */
  readonly default?: number;
}

/** A rule for each key that an options object may have: one that is forgotten does not compile. */
export type OptionRules<Options> = { readonly [Key in keyof Required<Options>]: OptionRule };

/**
 * Checks an options object against its rules, and fills in the defaults of numbers. A value that is
 * `undefined` counts as left out.
 *
 * @param what How messages name the object: `flush() options`.
 * @param prefix What stands before a key in messages: `store.`.
 * @throws {TypeError} If it is no object, has an unknown key, or a value has the wrong type.
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
  // So that defaults of its own are filled in.
  return rule.type === "object" ? {} : undefined;
}

function checkValue(name: string, value: unknown, rule: OptionRule): void {
  if (rule.type === "number") return checkNumber(name, value, rule);
  // Its keys are checked next, and first of all that it is one.
  if (rule.type === "object") return;
  if (rule.accepts(value)) return;
  throw new TypeError(`${name} must be ${rule.expected}: received ${typeInWords(value)}`);
}

/**
 * Throws unless a value is a number in a range.
 *
 * @param name How messages name it.
 * @throws {TypeError} If it is no number.
 * @throws {RangeError} If it is out of range.
 */
export function checkNumber(
  name: string,
  value: unknown,
  range: NumberRange,
): asserts value is number {
  const { minimum = -Infinity, maximum = Infinity, multipleOf } = range;
  const isMultiple = multipleOf === undefined ||
    (Number.isSafeInteger(value) && Number(value) % multipleOf === 0);
  const isNumber = typeof value === "number";
  if (isNumber && value >= minimum && value <= maximum && isMultiple) return;
  const message = `${name} must be ${inWords(range)}: received ${numberInWords(value)}`;
  throw isNumber ? new RangeError(message) : new TypeError(message);
}

function inWords({ minimum, maximum, multipleOf }: NumberRange): string {
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

/** A string. */
export const STRING: OptionRule = {
  type: "value",
  accepts: (value) => typeof value === "string",
  expected: "a string",
};
