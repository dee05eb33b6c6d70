import { nearestName } from "../base/options.ts";
import { ConfigError } from "../base/config_error.ts";

/** What every configuration key declares. */
export interface FieldBase<Value> {
  /** Whether the key must be given. @default {false} */
  readonly required?: boolean;
  /** Value of a key that is not given. */
  readonly default?: Value;
  /** Treats `null` as not given: LMCache's own default is null. @default {false} */
  readonly nullable?: boolean;
  /** What the key does, in one sentence. */
  readonly help: string;
  /** Checks a value of the right type; returns what is expected instead, or `undefined`. */
  readonly check?: (value: Value) => string | undefined;
}

/** A configuration key that holds a string. */
export interface StringField extends FieldBase<string> {
  /** The type. */
  readonly type: "string";
  /** The values allowed; any string if left out. */
  readonly oneOf?: readonly string[];
  /** Whether the value must never be shown, not even in errors. @default {false} */
  readonly secret?: boolean;
}

/** The numbers that a configuration key accepts. */
export interface NumberRange {
  /** Only integers. @default {false} */
  readonly integer?: boolean;
  /** Smallest value allowed. */
  readonly minimum?: number;
  /** Lower bound that is itself not allowed. */
  readonly exclusiveMinimum?: number;
  /** Largest value allowed. */
  readonly maximum?: number;
}

/** A configuration key that holds a finite number. */
export interface NumberField extends FieldBase<number>, NumberRange {
  /** The type. */
  readonly type: "number";
}

/** A configuration key that holds a list of finite numbers, each in the range. */
export interface NumbersField extends FieldBase<readonly number[]>, NumberRange {
  /** The type. */
  readonly type: "numbers";
}

/** A configuration key that holds `true` or `false`. */
export interface BooleanField extends FieldBase<boolean> {
  /** The type. */
  readonly type: "boolean";
}

/** A configuration key that holds an object with declared keys of its own. */
export interface ObjectField extends FieldBase<never> {
  /** The type. */
  readonly type: "object";
  /** The keys in it. */
  readonly fields: ConfigFields;
}

/** A configuration key that holds an object with any keys, which its user checks. */
export interface RecordField extends FieldBase<Readonly<Record<string, unknown>>> {
  /** The type. */
  readonly type: "record";
}

/** A declared configuration key. */
export type ConfigField =
  | StringField
  | NumberField
  | NumbersField
  | BooleanField
  | ObjectField
  | RecordField;

/** Declared configuration keys by name. */
export type ConfigFields = Readonly<Record<string, ConfigField>>;

/** Type of the value of one key. */
export type ConfigValue<Field extends ConfigField> = Field extends
  { readonly type: "string"; readonly oneOf: readonly (infer Choice)[] } ? Choice
  : Field extends { readonly type: "string" } ? string
  : Field extends { readonly type: "number" } ? number
  : Field extends { readonly type: "numbers" } ? readonly number[]
  : Field extends { readonly type: "object"; readonly fields: infer Fields extends ConfigFields }
    ? ConfigValues<Fields>
  : Field extends { readonly type: "record" } ? Readonly<Record<string, unknown>>
  : boolean;

/** Types of the validated values: a key not given and without a default is `undefined`. */
export type ConfigValues<Fields extends ConfigFields> = {
  readonly [Key in keyof Fields]: Fields[Key] extends
    { readonly required: true } | { readonly default: unknown } ? ConfigValue<Fields[Key]>
    : ConfigValue<Fields[Key]> | undefined;
};

/** Type of a value as configurations contain it. */
export type GivenValue<Field extends ConfigField> = Field extends
  { readonly type: "object"; readonly fields: infer Fields extends ConfigFields }
  ? GivenValues<Fields>
  : ConfigValue<Field> | (Field extends { readonly nullable: true } ? null : never);

/** Types of the values as configurations contain them: keys that are not required may be left out. */
export type GivenValues<Fields extends ConfigFields> =
  & {
    readonly [Key in keyof Fields as Fields[Key] extends { readonly required: true } ? Key : never]:
      GivenValue<Fields[Key]>;
  }
  & {
    readonly [
      Key in keyof Fields as Fields[Key] extends { readonly required: true } ? never : Key
    ]?: GivenValue<Fields[Key]>;
  };

/**
 * Configuration of an adapter, derived from the declaration of its module: the type, the declared
 * keys, and the keys `eviction` and `serde`, which the cache handles unless they are declared.
 *
 * @example
 * ```ts ignore
 * export type ShelfConfig = ConfigOf<"shelf", typeof shelf>;
 * ```
 */
export type ConfigOf<Type extends string, Module extends { readonly config: ConfigFields }> =
  & { readonly type: Type }
  & GivenValues<Module["config"]>
  & { readonly [Key in Exclude<"eviction" | "serde", keyof Module["config"]>]?: unknown };

/** The part of an adapter module that this file needs. */
export interface Configurable<Fields extends ConfigFields = ConfigFields> {
  /** The adapter type. */
  readonly type: string;
  /** One sentence. */
  readonly summary: string;
  /** The declared keys. */
  readonly config: Fields;
}

/**
 * Checks a configuration against its declaration and fills in defaults.
 *
 * @param module The declaration.
 * @param given The configuration, with or without `type`.
 * @param name Subject of the errors.
 * @throws {ConfigError} If a key is unknown, missing, of a wrong type or out of range.
 */
export function parseAdapterConfig<Fields extends ConfigFields>(
  module: Configurable<Fields>,
  given: Readonly<Record<string, unknown>>,
  name = `${module.type} adapter`,
): ConfigValues<Fields> {
  const fail: Fail = (key, expected, received, hidden = false) => {
    throw new ConfigError({ subject: name, key, expected, received, hidden });
  };
  const { type: _, ...rest } = given;
  return parseFields(module.config, rest, "", fail) as ConfigValues<Fields>;
}

/** The configuration keys of an adapter as text, for error messages and the command line. */
export function adapterHelp(module: Configurable): string {
  const lines = helpLines(module.config, "  ");
  const keys = lines.length === 0 ? "  no keys" : lines.join("\n");
  return `${module.type}: ${module.summary}\n${keys}`;
}

function helpLines(fields: ConfigFields, indent: string): string[] {
  return Object.entries(fields).flatMap(([key, field]) => {
    const notes = [describeField(field)];
    if (field.required) notes.push("required");
    if (field.default !== undefined) notes.push(`default ${JSON.stringify(field.default)}`);
    const own = field.type === "object" ? helpLines(field.fields, `${indent}    `) : [];
    return [`${indent}${key}: ${notes.join(", ")}\n${indent}    ${field.help}`, ...own];
  });
}

/** LMCache's keys for every adapter. Only its defaults are accepted, and have no effect. */
const lmcacheKeys: ReadonlyMap<
  string,
  { readonly accepted: readonly unknown[]; readonly expected: string }
> = new Map([
  ["persist_enabled", {
    accepted: [true],
    expected: "true, or no value: closing the cache never removes objects",
  }],
  ["shared", {
    accepted: [false],
    expected: "false, or no value: whether objects are shared depends on the adapter type",
  }],
  ["affinity_tag", {
    accepted: [null, ""],
    expected: "null, or no value: there is one device memory, so no tags to choose it by",
  }],
]);

type Fail = (key: string, expected: string, received: unknown, hidden?: boolean) => never;

function parseFields(
  fields: ConfigFields,
  given: Readonly<Record<string, unknown>>,
  prefix: string,
  fail: Fail,
): Record<string, unknown> {
  for (const key of Object.keys(given)) {
    if (Object.hasOwn(fields, key)) continue;
    const common = prefix === "" ? lmcacheKeys.get(key) : undefined;
    if (common?.accepted.includes(given[key])) continue;
    if (common !== undefined) fail(key, common.expected, given[key], isHidden(given[key]));
    const known = [...prefix === "" ? ["type"] : [], ...Object.keys(fields)];
    const nearest = nearestName(key, known);
    const keys = nearest === undefined
      ? `one of the keys ${known.join(", ")}`
      : `the key ${nearest}`;
    fail(prefix + key, keys, key);
  }
  const values: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(fields)) {
    const name = prefix + key;
    const isLeftOut = given[key] === undefined || (given[key] === null && field.nullable);
    const value = isLeftOut ? field.default : given[key];
    if (value === undefined) {
      if (field.required) fail(name, describeField(field), "nothing");
    } else if (field.type === "object") {
      if (!isRecord(value)) return fail(name, describeField(field), value, isHidden(value));
      values[key] = parseFields(field.fields, value, `${name}.`, fail);
    } else {
      const expected = unmetExpectation(field, value);
      const isSecret = field.type === "string" && field.secret === true;
      if (expected !== undefined) {
        fail(name, expected + suggestion(field, value), value, isSecret || isHidden(value));
      }
      values[key] = value;
    }
  }
  return values;
}

/** Whether a value may be or contain a secret; messages then show its type only. */
function isHidden(value: unknown): boolean {
  return typeof value !== "number" && typeof value !== "boolean" && value !== null;
}

function suggestion(field: ConfigField, value: unknown): string {
  if (field.type !== "string" || field.oneOf === undefined || typeof value !== "string") return "";
  if (field.oneOf.includes(value)) return "";
  const nearest = nearestName(value, field.oneOf);
  return nearest === undefined ? "" : `, perhaps ${nearest}`;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Type and range of a key, as help and errors show them. */
export function describeField(field: ConfigField): string {
  switch (field.type) {
    case "string":
      return field.oneOf === undefined ? "string" : `one of ${field.oneOf.join(", ")}`;
    case "boolean":
      return "boolean";
    case "object":
      return `object with the keys ${Object.keys(field.fields).join(", ")}`;
    case "record":
      return "object";
    case "number":
      return `${field.integer ? "integer" : "number"}${describeBounds(field)}`;
    case "numbers":
      return `list of ${field.integer ? "integers" : "numbers"}${describeBounds(field)}`;
  }
}

function describeBounds({ minimum, exclusiveMinimum, maximum }: NumberRange): string {
  if (minimum !== undefined && maximum !== undefined) return ` from ${minimum} to ${maximum}`;
  const atLeast = minimum === undefined ? "" : ` of at least ${minimum}`;
  const lower = exclusiveMinimum === undefined ? atLeast : ` greater than ${exclusiveMinimum}`;
  if (maximum === undefined) return lower;
  return lower === "" ? ` of at most ${maximum}` : `${lower} and at most ${maximum}`;
}

/** What was expected; `undefined` if the value meets it. */
function unmetExpectation(
  field: Exclude<ConfigField, ObjectField>,
  value: unknown,
): string | undefined {
  switch (field.type) {
    case "string":
      if (typeof value !== "string") return describeField(field);
      if (field.oneOf !== undefined && !field.oneOf.includes(value)) return describeField(field);
      return field.check?.(value);
    case "boolean":
      return typeof value === "boolean" ? field.check?.(value) : describeField(field);
    case "record":
      return isRecord(value) ? field.check?.(value) : describeField(field);
    case "number":
      return isInRange(field, value) ? field.check?.(value) : describeField(field);
    case "numbers":
      return Array.isArray(value) && value.every((each) => isInRange(field, each))
        ? field.check?.(value)
        : describeField(field);
  }
}

function isInRange(
  { integer, minimum, exclusiveMinimum, maximum }: NumberRange,
  value: unknown,
): value is number {
  return typeof value === "number" && Number.isFinite(value) &&
    (!integer || Number.isSafeInteger(value)) &&
    (minimum === undefined || value >= minimum) &&
    (exclusiveMinimum === undefined || value > exclusiveMinimum) &&
    (maximum === undefined || value <= maximum);
}
