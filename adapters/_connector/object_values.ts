import { type AdapterObject, fitsRoom, type ObjectKey } from "../../src/l2/adapter.ts";
import { ObjectParts } from "../_shared/object_parts.ts";
import { untilAborted } from "../_shared/until_aborted.ts";
import { asBytes, type Backend } from "./backend.ts";
import { newPartId, type ObjectNames } from "./object_names.ts";
import {
  type DecodedValue,
  decodeValue,
  encodeManifest,
  encodeWhole,
  headBytes,
  MAX_MANIFEST_BYTES,
  type PartSet,
} from "./value_format.ts";

/** Values of one object that are moved at a time. */
const PARTS_AT_A_TIME = 4;

const NOT_TAKEN = "The connector did not take the value";

/** How {@linkcode ObjectValues} are set up. */
export interface ObjectValuesOptions {
  /** Where they are. */
  readonly backend: Backend;
  /** How they are called. */
  readonly names: ObjectNames;
  /** Objects with more bytes are split into values of this size. */
  readonly maxValueBytes: number;
}

/** What is known of an object without its bytes. */
export interface ObjectFacts {
  /** Its key. */
  readonly key: ObjectKey;
  /** Its bytes. */
  readonly byteLength: number;
  /** Where they are, if not in its own value. */
  readonly parts?: PartSet;
}

/**
 * Objects as values of a connector. A large one lies in several values under a name that nobody
 * else uses; the value under its own name, written last, says where: it is visible as a whole, or
 * not at all.
 */
export class ObjectValues {
  readonly #options: ObjectValuesOptions;

  /** Asks nothing yet. */
  constructor(options: ObjectValuesOptions) {
    this.#options = options;
  }

  /** Puts objects; why each is not there, or `undefined` where it is. */
  async writeAll(objects: readonly AdapterObject[], signal: AbortSignal): Promise<unknown[]> {
    const { backend, names, maxValueBytes } = this.#options;
    const areSmall = objects.every(({ byteLength }) => byteLength <= maxValueBytes);
    if (backend.setMany !== undefined && objects.length > 1 && areSmall) {
      try {
        const entries = objects.map(({ key, byteLength, parts }) =>
          [names.of(key), encodeWhole(key, byteLength, parts)] as const
        );
        const answer = await this.#ask(signal, ({ setMany }) => setMany?.(entries, signal));
        const answers: readonly unknown[] = Array.isArray(answer) ? answer : [];
        return objects.map((_, i) => answers[i] === false ? new Error(NOT_TAKEN) : undefined);
      } catch {
        // Each by itself tells which of them cannot be put.
      }
    }
    return await Promise.all(
      objects.map((object) => this.#write(object, signal).then(() => undefined, (error) => error)),
    );
  }

  /** Reads objects into their parts; whether all of one was there, or why that is unknown. */
  async readAll(
    objects: readonly AdapterObject[],
    allowShorter: boolean,
    signal: AbortSignal,
  ): Promise<(boolean | Error)[]> {
    const values = await this.#getMany(objects, signal);
    return await Promise.all(
      objects.map((object, i) =>
        this.#read(object, values?.[i], allowShorter, signal).catch((error) =>
          error instanceof Error ? error : new Error(String(error))
        )
      ),
    );
  }

  /** Which of the objects there are. */
  async hasAll(keys: readonly ObjectKey[], signal: AbortSignal): Promise<boolean[]> {
    const { backend, names } = this.#options;
    if (backend.hasMany !== undefined && keys.length > 1) {
      try {
        const named = keys.map((key) => names.of(key));
        const answers = await this.#ask(signal, ({ hasMany }) => hasMany?.(named, signal));
        if (Array.isArray(answers) && answers.length === keys.length) return answers.map(Boolean);
      } catch {
        // Each by itself tells which of them cannot be asked for.
      }
    }
    return await Promise.all(keys.map((key) => this.#has(key, signal)));
  }

  async #write(object: AdapterObject, signal: AbortSignal): Promise<void> {
    const { names, maxValueBytes } = this.#options;
    const { key, parts, byteLength } = object;
    if (byteLength <= maxValueBytes) {
      return await this.#set(names.of(key), encodeWhole(key, byteLength, parts), signal);
    }
    const set = {
      id: newPartId(),
      partBytes: maxValueBytes,
      count: Math.ceil(byteLength / maxValueBytes),
    };
    const before = await this.#has(key, signal) ? await this.factsOf(key, signal) : undefined;
    try {
      const bytes = new ObjectParts(parts);
      await forEachPart(set, byteLength, async (index, start, end) => {
        const copy = new Uint8Array(end - start);
        bytes.copyTo(copy, start);
        await this.#set(names.ofPart(set.id, index), copy, signal);
      });
      await this.#set(names.of(key), encodeManifest(key, byteLength, set), signal);
    } catch (error) {
      await this.removeParts(set, signal).catch(() => {});
      throw error;
    }
    if (before?.parts !== undefined) await this.removeParts(before.parts, signal).catch(() => {});
  }

  async #has(key: ObjectKey, signal: AbortSignal): Promise<boolean> {
    return Boolean(await this.#ask(signal, ({ has }) => has(this.#options.names.of(key), signal)));
  }

  /** The values of several objects, if the connector has them at once. */
  async #getMany(
    objects: readonly AdapterObject[],
    signal: AbortSignal,
  ): Promise<readonly unknown[] | undefined> {
    const { backend, names } = this.#options;
    if (backend.getMany === undefined || objects.length < 2) return undefined;
    try {
      const named = objects.map(({ key }) => names.of(key));
      const answers = await this.#ask(signal, ({ getMany }) => getMany?.(named, signal));
      return Array.isArray(answers) && answers.length === objects.length ? answers : undefined;
    } catch {
      // Each by itself tells which of them cannot be read.
      return undefined;
    }
  }

  async #read(
    object: AdapterObject,
    known: unknown,
    allowShorter: boolean,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { names } = this.#options;
    const { key, parts, byteLength } = object;
    const value = asBytes(known) ?? await this.#get(names.of(key), signal);
    const found = value === undefined ? undefined : decodeValue(value);
    if (found === undefined || !found.key.equals(key)) return false;
    if (!fitsRoom(found.byteLength, byteLength, allowShorter)) return false;
    const room = new ObjectParts(parts);
    const { body } = found;
    if (body instanceof Uint8Array) {
      room.fill(body, 0);
      return true;
    }
    let isWhole = true;
    await forEachPart(body, found.byteLength, async (index, start, end) => {
      if (!isWhole) return;
      const bytes = await this.#get(names.ofPart(body.id, index), signal);
      if (bytes?.byteLength === end - start) room.fill(bytes, start);
      else isWhole = false;
    });
    return isWhole;
  }

  /** What is known of an object; `undefined` if it is not there. */
  async factsOf(key: ObjectKey, signal: AbortSignal): Promise<ObjectFacts | undefined> {
    const facts = await this.factsUnder(this.#options.names.of(key), key, signal);
    return facts?.key.equals(key) === true ? facts : undefined;
  }

  /**
   * What is known of the object under a name.
   *
   * @param key Its key, if the name says it.
   */
  async factsUnder(
    name: string,
    key: ObjectKey | undefined,
    signal: AbortSignal,
  ): Promise<ObjectFacts | undefined> {
    if (key !== undefined && this.#options.backend.sizeOf !== undefined) {
      const size = await this.#ask(signal, (backend) => backend.sizeOf?.(name, signal));
      // What is shorter may say where the bytes are.
      if (typeof size === "number" && size > MAX_MANIFEST_BYTES) {
        return { key, byteLength: size - headBytes(key) };
      }
    }
    const value = await this.#get(name, signal);
    const found = value === undefined ? undefined : decodeValue(value);
    return found && factsIn(found);
  }

  /** Removes an object; whether it was there. */
  async remove({ key, parts }: ObjectFacts, signal: AbortSignal): Promise<boolean> {
    const name = this.#options.names.of(key);
    const answer = await this.#ask(signal, (backend) => backend.delete?.(name, signal));
    if (parts !== undefined) await this.removeParts(parts, signal);
    return answer !== false;
  }

  /** Removes values that no object needs. */
  async removeParts(set: PartSet, signal: AbortSignal): Promise<void> {
    const { names } = this.#options;
    await forEachPart(set, set.count * set.partBytes, async (index) => {
      const name = names.ofPart(set.id, index);
      await this.#ask(signal, (backend) => backend.delete?.(name, signal));
    });
  }

  async #get(name: string, signal: AbortSignal): Promise<Uint8Array | undefined> {
    return asBytes(await this.#ask(signal, (backend) => backend.get(name, signal)));
  }

  async #set(name: string, value: Uint8Array<ArrayBuffer>, signal: AbortSignal): Promise<void> {
    const answer = await this.#ask(signal, (backend) => backend.set(name, value, signal));
    if (answer === false) throw new Error(NOT_TAKEN);
  }

  /** What the connector answers; fails as soon as nobody waits any more. */
  #ask(signal: AbortSignal, question: (backend: Backend) => unknown): Promise<unknown> {
    const answer = (async () => await question(this.#options.backend))();
    return untilAborted(signal, answer, () => Promise.reject(signal.reason));
  }
}

function factsIn({ key, byteLength, body }: DecodedValue): ObjectFacts {
  return body instanceof Uint8Array ? { key, byteLength } : { key, byteLength, parts: body };
}

/** Does `work` for each part, a few at a time; stops at the first failure. */
async function forEachPart(
  { partBytes, count }: PartSet,
  byteLength: number,
  work: (index: number, start: number, end: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const run = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) {
      const start = index * partBytes;
      try {
        await work(index, start, Math.min(byteLength, start + partBytes));
      } catch (error) {
        next = count;
        throw error;
      }
    }
  };
  const runs = Array.from({ length: Math.min(PARTS_AT_A_TIME, count) }, run);
  const outcomes = await Promise.allSettled(runs);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
}
