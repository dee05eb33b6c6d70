import { chunkHashes, tokenAt, type TokenIds } from "../../keys/chunk_hash.ts";
import { DEFAULT_CHUNK_TOKENS, type ObjectLayout } from "../../keys/kv_layout.ts";
import { ObjectKey } from "../../keys/object_key.ts";
import type { L1Status, WriteReservation } from "../../l1/l1_cache.ts";
import type { MemoryRange } from "../../memory/memory_device.ts";
import { systemClock } from "../../base/clock.ts";
import { createDigest, sha256 } from "../../base/digest.ts";
import { checkNotNullish, type OptionRules, readOptions, STRING } from "../../base/options.ts";
import { LIMIT_RULES } from "../prefix_options.ts";
import {
  type ByteSink,
  type ByteSource,
  createFileSink,
  openFileSource,
} from "../../base/state_file.ts";
import { MemorySink, memorySource } from "../../base/state_memory.ts";
import { concatParts } from "../../adapter/contract.ts";
import type { TieredCache } from "../../tiered_cache.ts";
import {
  decodeManifest,
  encodeManifest,
  type Manifest,
  MANIFEST_BYTES,
  MAX_TAIL_TOKENS,
} from "./manifest.ts";

/** Bytes of a state per object. */
const PART_BYTES = 2 ** 20;
/** Maximum number of parts in flight from the adapters. */
const MAX_PARTS_IN_FLIGHT = 16;
/** Maximum number of saved states that share all complete chunks and differ in the tail. */
const SLOTS = 8;
const DEFAULT_DEADLINE_MS = 10_000;

const PUT_RULES: OptionRules<SnapshotOptions> = { salt: STRING };
const MATCH_RULES: OptionRules<SnapshotMatchOptions> = { ...PUT_RULES, ...LIMIT_RULES };
const CACHE_RULES: OptionRules<SnapshotCacheOptions> = {
  model: STRING,
  fingerprint: STRING,
  chunkTokens: { type: "number", minimum: 1, maximum: MAX_TAIL_TOKENS, multipleOf: 1 },
};

const PART_LAYOUT: ObjectLayout = { byteLength: PART_BYTES, fingerprint: fingerprint("part 1") };
const MANIFEST_LAYOUT: ObjectLayout = {
  byteLength: MANIFEST_BYTES,
  fingerprint: fingerprint("manifest 1"),
};

/** Options of a {@linkcode SnapshotCache}. */
export interface SnapshotCacheOptions {
  /** Name of the model, under which its states are listed. */
  readonly model: string;
  /**
   * Identifies the format of the states. A state is only loaded if it is equal, because a foreign
   * state can crash an engine. Include the digest of the model file (see
   * {@linkcode fileFingerprint}), the engine, its version, and every setting that changes the state.
   */
  readonly fingerprint: string;
  /** Tokens per chunk. States are found by the chunks of their tokens. @default {256} */
  readonly chunkTokens?: number;
}

/** Options of all calls. */
export interface SnapshotOptions {
  /** Isolates tenants, as in `PromptOptions`. @default {""} */
  readonly salt?: string;
}

/** Options of calls that find a state. */
export interface SnapshotMatchOptions extends SnapshotOptions {
  /** After this time the call returns without a state. @default {10000} */
  readonly deadlineMs?: number;
  /** Aborts the call, which rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** A saved state. */
export interface Snapshot {
  /** Number of tokens that it covers. */
  readonly tokens: number;
  /** The state. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Caches engine states for token prefixes: opaque bytes of any length, such as the state of a
 * sequence in llama.cpp. A state is found for every prompt that begins with its tokens. A lookup
 * returns exactly the bytes that were saved, or nothing.
 */
export class SnapshotCache {
  /** Tokens per chunk. */
  readonly chunkTokens: number;
  readonly #cache: TieredCache;
  readonly #model: string;
  readonly #fingerprint: string;

  /**
   * Creates a snapshot cache on top of `cache`. Its device should be host memory, because states
   * are not kept on a GPU.
   *
   * @throws {TypeError | RangeError} If the name of the model, its fingerprint or the chunk size is
   * not valid, or parts of 1 MiB do not fit into the cache.
   */
  constructor(cache: TieredCache, options: SnapshotCacheOptions) {
    readOptions("SnapshotCache options", options, CACHE_RULES);
    const { model, fingerprint, chunkTokens = DEFAULT_CHUNK_TOKENS } = options;
    if (typeof fingerprint !== "string" || fingerprint === "") {
      throw new TypeError("fingerprint must be a string that is not empty");
    }
    new ObjectKey({ chunkHash: new Uint8Array(32), model });
    for (const layout of [PART_LAYOUT, MANIFEST_LAYOUT]) cache.checkLayout(layout);
    this.#cache = cache;
    this.#model = model;
    this.#fingerprint = fingerprint;
    this.chunkTokens = chunkTokens;
  }

  /**
   * Saves the state of a sequence.
   *
   * @param tokens All tokens of the sequence that the state covers.
   * @returns Whether the whole state was stored. Parts that are already stored are not copied again.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid, or there is no token.
   */
  put(
    tokens: TokenIds,
    state: Uint8Array<ArrayBuffer>,
    options: SnapshotOptions = {},
  ): Promise<boolean> {
    return this.#put(tokens, memorySource(state), options);
  }

  /**
   * Like {@linkcode put}, for a state in a file. Requires `--allow-read` permission for the file.
   *
   * @throws {Error} If the file cannot be read, or changes while it is read.
   */
  async putFile(
    tokens: TokenIds,
    path: string | URL,
    options: SnapshotOptions = {},
  ): Promise<boolean> {
    using source = await openFileSource(path);
    return await this.#put(tokens, source, options);
  }

  /**
   * Finds the state of the longest saved sequence that is a prefix of the tokens, which may be all
   * of them.
   *
   * @returns `undefined` if there is none.
   * @throws {TypeError | RangeError} If the salt or a token id is not valid.
   * @throws The reason of `options.signal` if that aborts.
   */
  async match(
    tokens: TokenIds,
    options: SnapshotMatchOptions = {},
  ): Promise<Snapshot | undefined> {
    let sink: MemorySink | undefined;
    const openSink = (byteLength: number): MemorySink => sink = new MemorySink(byteLength);
    const found = await this.#match(tokens, options, openSink);
    if (found === undefined || sink === undefined) return undefined;
    return { tokens: found, bytes: sink.bytes };
  }

  /**
   * Like {@linkcode match}, but writes the state to a file, which is replaced atomically. Requires
   * `--allow-write` permission for its directory.
   *
   * @returns Number of tokens that the state covers; 0 if there is none, in which case the file is
   * not touched.
   * @throws {Error} If the file cannot be written.
   */
  async matchFile(
    tokens: TokenIds,
    path: string | URL,
    options: SnapshotMatchOptions = {},
  ): Promise<number> {
    return await this.#match(tokens, options, () => createFileSink(path)) ?? 0;
  }

  async #put(
    tokens: TokenIds,
    source: ByteSource,
    options: SnapshotOptions,
  ): Promise<boolean> {
    checkOptions("put() options", options, PUT_RULES);
    const { salt = "" } = options;
    if (tokens.length === 0) throw new RangeError("tokens must have at least 1: received none");
    const names = this.#names(tokens, salt);
    const tailTokens = tokens.length % this.chunkTokens;
    const start = tokens.length - tailTokens;
    const tail = Array.from({ length: tailTokens }, (_, i) => tokenAt(tokens, start + i));
    const digest = await digestOf(source);
    const parts = partsOf(source.byteLength);
    const read = createDigest();
    const buffer = new Uint8Array(PART_BYTES);
    using held = new HeldObjects(this.#cache);
    for (let i = 0; i < parts; i++) {
      const length = Math.min(PART_BYTES, source.byteLength - i * PART_BYTES);
      await source.read(i * PART_BYTES, buffer.subarray(0, length));
      read.update(buffer.subarray(0, length));
      buffer.fill(0, length);
      const key = names.part(digest, i);
      // A skipped part implies that all later parts and the manifest are skipped.
      if (!(await this.#write(key, PART_LAYOUT, buffer, parts - i + 1, held))) return false;
    }
    if (read.finish().toHex() !== digest.toHex()) {
      throw new Error("The state must not change while it is saved: save it again");
    }
    const manifest = encodeManifest({ digest, byteLength: source.byteLength, tail });
    const key = await this.#slotFor(manifest, names.manifests.slice(-SLOTS));
    return await this.#write(key, MANIFEST_LAYOUT, manifest, 1, held);
  }

  /**
   * The slot that holds a manifest, else a free one. If others hold all slots, the one that covers
   * the fewest tokens is forgotten.
   */
  async #slotFor(
    manifest: Uint8Array<ArrayBuffer>,
    slots: readonly ObjectKey[],
  ): Promise<ObjectKey> {
    const first = sha256(manifest)[0] ?? 0;
    let shortest = { key: slots[0] as ObjectKey, tokens: Infinity };
    for (const i of slots.keys()) {
      const key = slots[(first + i) % SLOTS] as ObjectKey;
      const found = await this.#readManifest(key, { deadlineMs: DEFAULT_DEADLINE_MS });
      if (found === undefined || encodeManifest(found).toHex() === manifest.toHex()) return key;
      const tokens = found.tail.length;
      if (tokens < shortest.tokens) shortest = { key, tokens };
    }
    await this.#cache.forget({ keys: [shortest.key] });
    return shortest.key;
  }

  /**
   * Writes an object unless it is resident, and returns whether it is resident now.
   *
   * @param skipped Objects that count as skipped if it does not fit.
   */
  async #write(
    key: ObjectKey,
    layout: ObjectLayout,
    bytes: Uint8Array<ArrayBuffer>,
    skipped: number,
    held: HeldObjects,
  ): Promise<boolean> {
    const reserve = (ignored?: L1Status): WriteReservation | undefined =>
      this.#cache.reserveWrite([key], layout, (reason) => reason === ignored ? 0 : skipped)[0];
    let reservation = reserve("out-of-memory");
    if (reservation?.status === "out-of-memory") {
      await held.store();
      reservation = reserve();
    }
    if (reservation?.status === "success") {
      const { staged } = reservation;
      this.#cache.device.upload(staged.range, [bytes]);
      if (this.#cache.finishWrite([staged])[0] !== "success") return false;
    } else if (reservation?.status !== "already-present") return false;
    held.add(key);
    return true;
  }

  async #match(
    tokens: TokenIds,
    options: SnapshotMatchOptions,
    openSink: (byteLength: number) => ByteSink | Promise<ByteSink>,
  ): Promise<number | undefined> {
    checkOptions("match() options", options, MATCH_RULES);
    const { salt = "", deadlineMs = DEFAULT_DEADLINE_MS, signal } = options;
    const endsAt = systemClock.now() + deadlineMs;
    const limits = (): MatchLimits => ({
      deadlineMs: Math.max(0, endsAt - systemClock.now()),
      ...(signal === undefined ? {} : { signal }),
    });
    const names = this.#names(tokens, salt);
    for await (const { manifest, chunks } of this.#candidates(tokens, names.manifests, limits)) {
      await using sink = await openSink(manifest.byteLength);
      if (!(await this.#load(names.part, manifest, sink, limits))) continue;
      await sink.commit();
      return chunks * this.chunkTokens + manifest.tail.length;
    }
    return undefined;
  }

  /** Saved states whose tokens are a prefix of `tokens`, longest first. */
  async *#candidates(
    tokens: TokenIds,
    keys: readonly ObjectKey[],
    limits: () => MatchLimits,
  ): AsyncGenerator<{ manifest: Manifest; chunks: number }, void> {
    for (let end = keys.length; end > 0;) {
      // With a window of one chunk, the longest prefix is the one that ends with the last manifest.
      const row = { keys: keys.slice(0, end), layout: MANIFEST_LAYOUT, windowChunks: 1 };
      const hit = await this.#cache.matchGroups([row], limits());
      const { length } = hit;
      hit[Symbol.dispose]();
      if (length === 0) return;
      const chunks = Math.floor((length - 1) / SLOTS);
      end = chunks * SLOTS;
      const slots = keys.slice(end, length);
      const found = await Promise.all(slots.map((key) => this.#readManifest(key, limits())));
      const start = chunks * this.chunkTokens;
      const fitting = found.filter((manifest) => manifest !== undefined).filter(({ tail }) =>
        tail.every((token, i) => Number(tokens[start + i]) === token)
      );
      fitting.sort((a, b) => b.tail.length - a.tail.length);
      for (const manifest of fitting) yield { manifest, chunks };
    }
  }

  async #readManifest(key: ObjectKey, limits: MatchLimits): Promise<Manifest | undefined> {
    using hit = await this.#cache.match([key], MANIFEST_LAYOUT, limits);
    const [bytes] = await this.#read(hit.ranges());
    return bytes && decodeManifest(bytes);
  }

  /** Loads the parts of a state in order; returns whether all are there and the digest is right. */
  async #load(
    nameOf: SnapshotNames["part"],
    { digest, byteLength }: Manifest,
    sink: ByteSink,
    limits: () => MatchLimits,
  ): Promise<boolean> {
    const read = createDigest();
    const parts = partsOf(byteLength);
    for (let next = 0; next < parts;) {
      const length = Math.min(MAX_PARTS_IN_FLIGHT, parts - next);
      const batch = Array.from({ length }, (_, i) => nameOf(digest, next + i));
      using hit = await this.#cache.match(batch, PART_LAYOUT, limits());
      if (hit.length === 0) return false;
      for (const bytes of await this.#read(hit.ranges())) {
        const part = bytes.subarray(0, byteLength - next * PART_BYTES);
        read.update(part);
        await sink.write(part);
        next++;
      }
    }
    return read.finish().toHex() === digest.toHex();
  }

  async #read(ranges: readonly MemoryRange[]): Promise<Uint8Array<ArrayBuffer>[]> {
    if (ranges.length === 0) return [];
    using read = await this.#cache.device.readBack(
      ranges.map((range) => ({ range, tailBytes: 0 })),
    );
    return read.objects.map(concatParts);
  }

  /** The keys of a sequence's manifests and of the parts of its states. */
  #names(tokens: TokenIds, salt: string): SnapshotNames {
    const nameOf = (chunkHash: Uint8Array, objectGroup: number): ObjectKey =>
      new ObjectKey({ chunkHash, model: this.#model, objectGroup, cacheSalt: salt });
    const fields = ["kvtier snapshot 1", this.#model, this.#fingerprint, this.chunkTokens, salt];
    const root = sha256(new TextEncoder().encode(JSON.stringify(fields)));
    const chunks = [root, ...chunkHashes(root, tokens, this.chunkTokens)];
    return {
      manifests: chunks.flatMap((hash) =>
        Array.from({ length: SLOTS }, (_, slot) => nameOf(sha256(hash, Uint8Array.of(slot)), 1))
      ),
      part: (digest, i) => nameOf(sha256(root, digest, uint32(i)), 0),
    };
  }
}

/** The keys of a sequence. */
interface SnapshotNames {
  /** Of its manifests: {@linkcode SLOTS} for each number of complete chunks, from 0. */
  readonly manifests: readonly ObjectKey[];
  /** Of one part of a state. */
  readonly part: (digest: Uint8Array, index: number) => ObjectKey;
}

/** Keeps the objects of a state in L1 until adapters have them. */
class HeldObjects implements Disposable {
  readonly #cache: TieredCache;
  #leases = new DisposableStack();

  constructor(cache: TieredCache) {
    this.#cache = cache;
  }

  /** Holds a resident object. */
  add(key: ObjectKey): void {
    this.#leases.use(this.#cache.leaseResident([key]));
  }

  /** Waits for the adapters. A state may be larger than L1: what they have can be evicted. */
  async store(): Promise<void> {
    const { isComplete } = await this.#cache.flush();
    if (!isComplete || this.#cache.listAdapters().length === 0) return;
    this[Symbol.dispose]();
    this.#leases = new DisposableStack();
  }

  [Symbol.dispose](): void {
    this.#leases.dispose();
  }
}

/** Bounds of one step of a search. */
type MatchLimits = Pick<SnapshotMatchOptions, "deadlineMs" | "signal">;

/**
 * Computes the SHA-256 of a file in hexadecimal, for use as `fingerprint`. Requires `--allow-read`
 * permission for the file.
 *
 * @throws {Error} If the file cannot be read.
 */
export async function fileFingerprint(path: string | URL): Promise<string> {
  using source = await openFileSource(path);
  return (await digestOf(source)).toHex();
}

function checkOptions<Options extends SnapshotOptions>(
  what: string,
  options: Options,
  rules: OptionRules<Options>,
): void {
  readOptions(what, options, rules);
  checkNotNullish(what, options, ["salt"]);
}

async function digestOf(source: ByteSource): Promise<Uint8Array<ArrayBuffer>> {
  const digest = createDigest();
  const buffer = new Uint8Array(PART_BYTES);
  for (let offset = 0; offset < source.byteLength; offset += PART_BYTES) {
    const part = buffer.subarray(0, Math.min(PART_BYTES, source.byteLength - offset));
    await source.read(offset, part);
    digest.update(part);
  }
  return digest.finish();
}

function partsOf(byteLength: number): number {
  return Math.ceil(byteLength / PART_BYTES);
}

function uint32(value: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

function fingerprint(name: string): Uint8Array<ArrayBuffer> {
  return sha256(new TextEncoder().encode(`kvtier snapshot ${name}`)).slice(0, 8);
}
