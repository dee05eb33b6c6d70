import { nearestName } from "../runtime/options.ts";
import { ConfigError } from "./adapter_error.ts";

/** What all kinds of configuration keys declare. */
export interface FieldBase<Value> {
  /** Must be given. @default {false} */
  readonly required?: boolean;
  /** Value if it is not given. */
  readonly default?: Value;
  /** `null` counts as left out: LMCache's own default is null. @default {false} */
  readonly nullable?: boolean;
  /** What it does, in a sentence. */
  readonly help: string;
  /** What else to expect of a value of the right type; returns `undefined` if it is fine. */
  readonly check?: (value: Value) => string | undefined;
}

/** A configuration key that holds a text. */
export interface StringField extends FieldBase<string> {
  /** The type. */
  readonly type: "string";
  /** The values allowed; left out if any text is. */
  readonly oneOf?: readonly string[];
  /** Whether it must not be shown, in errors neither. @default {false} */
  readonly secret?: boolean;
}

/** Which numbers a configuration key takes. */
export interface NumberRange {
  /** Only whole numbers. @default {false} */
  readonly integer?: boolean;
  /** Least value. */
  readonly minimum?: number;
  /** The value must be greater. */
  readonly exclusiveMinimum?: number;
  /** Greatest value. */
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

/** A configuration key that holds an object with any keys, which somebody else checks. */
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

/** Types of all values, after validation: what is not given and has no default is `undefined`. */
export type ConfigValues<Fields extends ConfigFields> = {
  readonly [Key in keyof Fields]: Fields[Key] extends
    { readonly required: true } | { readonly default: unknown } ? ConfigValue<Fields[Key]>
    : ConfigValue<Fields[Key]> | undefined;
};

/** A declaration that has configuration keys: an adapter module, as far as this file cares. */
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
 * @param name What it is about, for errors.
 * @throws {ConfigError} If a key is unknown, missing, of a wrong type or out of range.
 */
export function parseAdapterConfig<Fields extends ConfigFields>(
  module: Configurable<Fields>,
  given: Readonly<Record<string, unknown>>,
  name = `${module.type} adapter`,
): ConfigValues<Fields> {
  const fail: Fail = (key, expected, received, hidden = false) => {
    throw new ConfigError({ adapter: name, key, expected, received, hidden });
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

/** LMCache's keys for every adapter, with the values that change nothing here: its defaults. */
const lmcacheKeys: ReadonlyMap<
  string,
  { readonly accepted: readonly unknown[]; readonly expected: string }
> = new Map([
  ["persist_enabled", {
    accepted: [true],
    expected: "true, or nothing: closing the cache never removes objects",
  }],
  ["shared", {
    accepted: [false],
    expected: "false, or nothing: whether objects are shared follows from the type of the adapter",
  }],
  ["affinity_tag", {
    accepted: [null, ""],
    expected: "null, or nothing: there is one device memory, so there are no tags to choose it by",
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

/** Whether a value may be a secret, or hold one: then messages tell its type only. */
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

/** Type and range of a key in words. */
export function describeField(field: ConfigField): string {
  switch (field.type) {
    case "string":
      return field.oneOf === undefined ? "a text" : `one of ${field.oneOf.join(", ")}`;
    case "boolean":
      return "true or false";
    case "object":
      return `an object with the keys ${Object.keys(field.fields).join(", ")}`;
    case "record":
      return "an object";
    case "number":
      return `${field.integer ? "a whole number" : "a number"}${describeBounds(field)}`;
    case "numbers":
      return `a list of ${field.integer ? "whole numbers" : "numbers"}${describeBounds(field)}`;
  }
}

function describeBounds({ minimum, exclusiveMinimum, maximum }: NumberRange): string {
  if (minimum !== undefined && maximum !== undefined) return ` from ${minimum} to ${maximum}`;
  const bounds = [
    ...minimum === undefined ? [] : [` of at least ${minimum}`],
    ...exclusiveMinimum === undefined ? [] : [` greater than ${exclusiveMinimum}`],
    ...maximum === undefined ? [] : [` of at most ${maximum}`],
  ];
  return bounds.join(",");
}

/** What was expected, if the value is not that. */
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
