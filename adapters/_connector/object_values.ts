import { type AdapterObject, fitsRoom, type ObjectKey } from "../../src/adapter/contract.ts";
import { readParts, writeParts } from "../../src/base/byte_parts.ts";
import { untilAborted } from "../../src/base/abort.ts";
import type { ReadOutcome } from "../_remote/remote_store.ts";
import { forEachPart, readSplit, writeSplit } from "../_remote/split_values.ts";
import { type Backend, type BackendEntry, bytesIn } from "./backend.ts";
import type { KnownObjects, ObjectFacts } from "./known_objects.ts";
import { type ConnectorObjectNames, newPartId } from "./object_names.ts";
import {
  type DecodedValue,
  decodeSizeKey,
  decodeValue,
  encodeManifest,
  encodeSize,
  encodeWhole,
  headerBytes,
  MAX_MANIFEST_BYTES,
  type PartSet,
} from "./value_format.ts";

/** Max parts of one object in flight. */
const PARTS_AT_A_TIME = 4;
/**
 * Objects above this size get a side value with their size, if the connector does not report sizes.
 */
const MIN_SIZED_BYTES = 8_192;

const NOT_TAKEN = "The connector did not store the value";

/** Options of {@linkcode ObjectValues}. */
export interface ObjectValuesOptions {
  readonly backend: Backend;
  readonly names: ConnectorObjectNames;
  readonly known: KnownObjects;
  /** Objects with more bytes are split into parts of this size. */
  readonly maxValueBytes: number;
  /**
   * Whether the connector reports sizes. If it does not but lists names, side values are written.
   */
  readonly reportsSizes: () => boolean;
}

/**
 * Objects as values of a connector. A large object is split into parts with unique names, and its
 * own value is a manifest that is written last: the object becomes visible completely or not at
 * all.
 */
export class ObjectValues {
  readonly #options: ObjectValuesOptions;

  constructor(options: ObjectValuesOptions) {
    this.#options = options;
  }

  /** Stores objects; returns the failure of each, or `undefined` if it was stored. */
  async writeAll(objects: readonly AdapterObject[], signal: AbortSignal): Promise<unknown[]> {
    const { backend, names, known, maxValueBytes } = this.#options;
    const areSmall = objects.every(({ byteLength }) => byteLength <= maxValueBytes);
    if (backend.setMany !== undefined && objects.length > 1 && areSmall) {
      const sizes = objects.map((object) => this.#sizeEntry(object))
        .filter((entry) => entry !== undefined);
      const replaced = objects.map(({ key }) => known.get(key));
      try {
        const values = objects.map(({ key, byteLength, parts }): BackendEntry => [
          names.of(key),
          encodeWhole(key, byteLength, parts),
        ]);
        const entries: readonly BackendEntry[] = [...values, ...sizes];
        const answer = await this.#ask(signal, ({ setMany }) => setMany?.(entries, signal));
        const answers: readonly unknown[] = Array.isArray(answer) ? answer : [];
        return await Promise.all(objects.map(async (object, i) => {
          if (answers[i] === false) return new Error(NOT_TAKEN);
          await this.#noteStored(object, undefined, replaced[i], signal);
          return undefined;
        }));
      } catch {
        // Single calls tell which of them fail.
      }
    }
    return await Promise.all(
      objects.map((object) => this.#write(object, signal).then(() => undefined, (error) => error)),
    );
  }

  /** Loads objects into their parts; returns an outcome or a failure for each. */
  async readAll(
    objects: readonly AdapterObject[],
    allowShorter: boolean,
    signal: AbortSignal,
  ): Promise<(ReadOutcome | Error)[]> {
    const values = await this.#getMany(objects, signal);
    return await Promise.all(
      objects.map((object, i) =>
        this.#read(object, values?.[i], allowShorter, signal).catch(asError)
      ),
    );
  }

  /** Whether each object exists, or why that is unknown. */
  async hasAll(keys: readonly ObjectKey[], signal: AbortSignal): Promise<(boolean | Error)[]> {
    const { backend, names } = this.#options;
    if (backend.hasMany !== undefined && keys.length > 1) {
      const named = keys.map((key) => names.of(key));
      const answers = await this.#askMany(named.length, signal, () => {
        return backend.hasMany?.(named, signal);
      });
      if (answers !== undefined) return answers.map(Boolean);
    }
    return await Promise.all(keys.map((key) => this.#has(key, signal).catch(asError)));
  }

  async #write(object: AdapterObject, signal: AbortSignal): Promise<void> {
    const { names, maxValueBytes, known } = this.#options;
    const { key, parts, byteLength } = object;
    if (byteLength <= maxValueBytes) {
      const replaced = known.get(key);
      await this.#set(names.of(key), encodeWhole(key, byteLength, parts), signal);
      const size = this.#sizeEntry(object);
      // Without the side value, a listing reads the value once to learn its size.
      if (size !== undefined) await this.#set(...size, signal).catch(() => {});
      return await this.#noteStored(object, undefined, replaced, signal);
    }
    const set = {
      id: newPartId(),
      partBytes: maxValueBytes,
      count: Math.ceil(byteLength / maxValueBytes),
    };
    const replaced = await this.#has(key, signal) ? await this.factsOf(key, signal) : undefined;
    await writeSplit({ ...set, byteLength }, PARTS_AT_A_TIME, signal, {
      writePart: ({ index, start, end }, stop) => {
        const copy = new Uint8Array(end - start);
        readParts(parts, start, copy);
        return this.#set(names.ofPart(set.id, index), copy, stop);
      },
      publish: async () => {
        await this.#set(names.of(key), encodeManifest(key, byteLength, set), signal);
        return true;
      },
      removeParts: () => this.#removeParts(set, signal).catch(() => {}),
      isRefusal: () => true,
    });
    await this.#noteStored(object, set, replaced, signal);
  }

  /** Records a stored object, and removes the parts and side values of the one that it replaced. */
  async #noteStored(
    { key, byteLength }: AdapterObject,
    parts: PartSet | undefined,
    replaced: ObjectFacts | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    this.#options.known.remember({ key, byteLength, ...(parts === undefined ? {} : { parts }) });
    const isSameSize = replaced?.byteLength === byteLength && parts === undefined &&
      replaced.parts === undefined;
    if (replaced !== undefined && !isSameSize) {
      await this.#removeSideValues(replaced, signal).catch(() => {});
    }
  }

  get #writesSizes(): boolean {
    return this.#options.backend.list !== undefined && !this.#options.reportsSizes();
  }

  /** The side value of an object that is not split; `undefined` if it needs none. */
  #sizeEntry(
    { key, byteLength }: Pick<ObjectFacts, "key" | "byteLength">,
  ): BackendEntry | undefined {
    if (byteLength <= MIN_SIZED_BYTES || !this.#writesSizes) return undefined;
    const name = this.#options.names.ofSize(key.digest.toHex(), byteLength);
    return [name, encodeSize(key, byteLength)];
  }

  async #has(key: ObjectKey, signal: AbortSignal): Promise<boolean> {
    return Boolean(await this.#ask(signal, ({ has }) => has(this.#options.names.of(key), signal)));
  }

  /** The values of several objects, if the connector can read many at once. */
  async #getMany(
    objects: readonly AdapterObject[],
    signal: AbortSignal,
  ): Promise<readonly unknown[] | undefined> {
    const { backend, names } = this.#options;
    if (backend.getMany === undefined || objects.length < 2) return undefined;
    const named = objects.map(({ key }) => names.of(key));
    return await this.#askMany(named.length, signal, () => backend.getMany?.(named, signal));
  }

  async #read(
    object: AdapterObject,
    answer: unknown,
    allowShorter: boolean,
    signal: AbortSignal,
  ): Promise<ReadOutcome> {
    const { names, known } = this.#options;
    const { key, parts, byteLength } = object;
    const value = bytesIn(answer) ?? await this.#get(names.of(key), signal);
    if (value === undefined) {
      known.forget(key);
      return "absent";
    }
    const found = decodeValue(value);
    if (found === undefined) return "magic";
    if (!found.key.equals(key)) return "key";
    known.remember(factsIn(found));
    if (!fitsRoom(found.byteLength, byteLength, allowShorter)) return "layout";
    const { body } = found;
    if (body instanceof Uint8Array) {
      writeParts(parts, 0, body);
      return "filled";
    }
    const split = { ...body, byteLength: found.byteLength };
    const readPart = (index: number, stop: AbortSignal): Promise<Uint8Array | undefined> =>
      this.#get(names.ofPart(body.id, index), stop);
    const isWhole = await readSplit(split, PARTS_AT_A_TIME, signal, parts, readPart);
    return isWhole ? "filled" : "length";
  }

  /** The facts of an object; `undefined` if it does not exist. */
  async factsOf(key: ObjectKey, signal: AbortSignal): Promise<ObjectFacts | undefined> {
    const { known, names } = this.#options;
    return known.get(key) ?? await this.factsUnder(names.of(key), key, signal);
  }

  /**
   * Reads the value under a name to learn about its object; `undefined` if there is none, or it is
   * an object of another adapter with a longer prefix.
   *
   * @param key Key that the name spells, if any. Then a foreign value counts as this object,
   * damaged.
   */
  async factsUnder(
    name: string,
    key: ObjectKey | undefined,
    signal: AbortSignal,
  ): Promise<ObjectFacts | undefined> {
    const { known, reportsSizes } = this.#options;
    if (key !== undefined && reportsSizes()) {
      const size = await this.#ask(signal, ({ sizeOf }) => sizeOf?.(name, signal));
      // A shorter value may be a manifest.
      if (Number.isSafeInteger(size) && Number(size) > MAX_MANIFEST_BYTES) {
        return this.#remember({ key, byteLength: Math.max(0, Number(size) - headerBytes(key)) });
      }
    }
    const value = await this.#get(name, signal);
    if (value === undefined) return undefined;
    const found = decodeValue(value);
    if (found === undefined) {
      return key && this.#remember({ key, byteLength: value.byteLength });
    }
    if (key === undefined ? this.#options.names.of(found.key) === name : found.key.equals(key)) {
      return this.#remember(factsIn(found));
    }
    if (key !== undefined) known.addForeign(key);
    return undefined;
  }

  /** The facts of an object from its side value; `undefined` if there is none. */
  async factsBeside(
    digest: string,
    byteLength: number,
    signal: AbortSignal,
  ): Promise<ObjectFacts | undefined> {
    const value = await this.#get(this.#options.names.ofSize(digest, byteLength), signal);
    const key = value && decodeSizeKey(value);
    if (key?.digest.toHex() !== digest) return undefined;
    return this.#remember({ key, byteLength });
  }

  /**
   * Removes the object or foreign value of a key; returns its facts, or `undefined` if there was
   * none.
   */
  async remove(key: ObjectKey, signal: AbortSignal): Promise<ObjectFacts | undefined> {
    const { known, names } = this.#options;
    const name = names.of(key);
    const before = known.get(key);
    const facts = before === undefined
      // An unreadable value can still be removed.
      ? await this.factsUnder(name, key, signal).catch(() => ({ key, byteLength: 0 }))
      : await this.#has(key, signal).catch(() => true)
      ? before
      : undefined;
    if (facts === undefined && known.isForeign(key)) return undefined;
    const answer = await this.#delete(name, signal);
    known.forget(key);
    const rest = facts ?? before;
    if (rest !== undefined) await this.#removeSideValues(rest, signal);
    return answer === false ? undefined : facts;
  }

  /** Writes the side value of an object if it is missing, and removes outdated ones. */
  async repairSizes(
    facts: ObjectFacts,
    sizes: readonly number[],
    signal: AbortSignal,
  ): Promise<void> {
    const { names } = this.#options;
    const entry = facts.parts === undefined ? this.#sizeEntry(facts) : undefined;
    if (entry !== undefined && !sizes.includes(facts.byteLength)) await this.#set(...entry, signal);
    const digest = facts.key.digest.toHex();
    for (const size of sizes) {
      if (entry !== undefined && size === facts.byteLength) continue;
      await this.#delete(names.ofSize(digest, size), signal);
    }
  }

  /** Removes values by name. */
  async removeNames(list: Iterable<string>, signal: AbortSignal): Promise<void> {
    for (const name of list) {
      if (signal.aborted) return;
      await this.#delete(name, signal);
    }
  }

  /** Removes the parts or the side value of an object. */
  async #removeSideValues(facts: ObjectFacts, signal: AbortSignal): Promise<void> {
    const { key, byteLength, parts } = facts;
    if (parts !== undefined) await this.#removeParts(parts, signal);
    else if (byteLength > MIN_SIZED_BYTES && this.#writesSizes) {
      await this.#delete(this.#options.names.ofSize(key.digest.toHex(), byteLength), signal);
    }
  }

  async #removeParts(set: PartSet, signal: AbortSignal): Promise<void> {
    const { names } = this.#options;
    const split = { ...set, byteLength: 0 };
    await forEachPart(
      split,
      PARTS_AT_A_TIME,
      signal,
      ({ index }, stop) => this.#delete(names.ofPart(set.id, index), stop),
    );
  }

  #remember(facts: ObjectFacts): ObjectFacts {
    this.#options.known.remember(facts);
    return facts;
  }

  async #delete(name: string, signal: AbortSignal): Promise<unknown> {
    return await this.#ask(signal, (backend) => backend.delete?.(name, signal));
  }

  async #get(name: string, signal: AbortSignal): Promise<Uint8Array | undefined> {
    return bytesIn(await this.#ask(signal, (backend) => backend.get(name, signal)));
  }

  async #set(name: string, value: Uint8Array<ArrayBuffer>, signal: AbortSignal): Promise<void> {
    const answer = await this.#ask(signal, (backend) => backend.set(name, value, signal));
    if (answer === false) throw new Error(NOT_TAKEN);
  }

  /** One answer for each of `count` keys; `undefined` if single calls must tell which of them fail. */
  async #askMany(
    count: number,
    signal: AbortSignal,
    question: () => unknown,
  ): Promise<readonly unknown[] | undefined> {
    const answers = await this.#ask(signal, question).catch(() => undefined);
    return Array.isArray(answers) && answers.length === count ? answers : undefined;
  }

  /** Asks the connector; fails as soon as `signal` aborts. */
  #ask(signal: AbortSignal, question: (backend: Backend) => unknown): Promise<unknown> {
    const answer = (async () => await question(this.#options.backend))();
    return untilAborted(signal, answer);
  }
}

function asError(cause: unknown): Error {
  return cause instanceof Error ? cause : new Error(String(cause));
}

function factsIn({ key, byteLength, body }: DecodedValue): ObjectFacts {
  return body instanceof Uint8Array ? { key, byteLength } : { key, byteLength, parts: body };
}
