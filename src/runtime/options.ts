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
    const edits = plain === other ? 0 : editsBetween(plain, other);
    // More than half of a short name is no typing error.
    if (edits < fewest && 2 * edits <= other.length) [nearest, fewest] = [candidate, edits];
  }
  return nearest;
}

/** The type of a value in words: never the value itself, which may be a secret. */
export function typeInWords(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return value.length === 0 ? "an empty array" : "an array";
  if (typeof value !== "object") return `a ${typeof value}`;
  const name: unknown = Object.getPrototypeOf(value)?.constructor?.name;
  if (typeof name === "string" && name !== "Object" && name !== "") return `a ${name}`;
  const keys = Object.keys(value);
  return keys.length === 0 ? "an empty object" : `an object with ${keys.slice(0, 8).join(", ")}`;
}

/** Without case and separators: `base_path` and `basePath` are one name. */
function plainly(name: string): string {
  return name.slice(0, 64).replaceAll(/[-_\s]/g, "").toLowerCase();
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
