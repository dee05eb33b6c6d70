import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "../support/fast_check.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import {
  L1Cache,
  type L1Lease,
  type L1Status,
  type ReadReservation,
  type StagedObject,
} from "../../src/l1/l1_cache.ts";
import { LruPolicy } from "../../src/policies/eviction_policy.ts";
import type { DeviceBuffer, MemoryRange } from "../../src/memory/memory_device.ts";
import type { Clock } from "../../src/base/clock.ts";
import { assertSameBytes } from "../support/bytes.ts";
import { FragileDevice, microtasks } from "../support/fragile_device.ts";
import { testBytes, testKey, testLayout } from "../support/objects.ts";
import { runs } from "../support/runs.ts";

// Random calls of an L1Cache next to a model that is too simple to be wrong: lists that are
// searched from the start, and no memory. Every status, event, counter and byte is compared.

const SIZE = 256;
const CAPACITY = 6;
const SALTS = ["", "b"];
const KEYS = Array.from({ length: 10 }, (_, n) => testKey(n, { cacheSalt: saltOf(n) }));
const NUMBERS = new Map(KEYS.map(({ id }, n) => [id, n]));
const BYTES = KEYS.map((key) => testBytes(key, SIZE));
const LAYOUT = testLayout(SIZE);
const POISON = new Uint8Array(SIZE).fill(0xee);
/** The buffer of an entry without a range: there is none. */
const NO_BUFFER = new Uint8Array(0);
const WRITERS = ["store", "prefetch:1"];
const WRITE_TTL_MS = 20;
const READ_TTL_MS = 10;

function saltOf(n: number): string {
  return SALTS[n % SALTS.length] ?? "";
}

interface ModelEntry {
  readonly n: number;
  readonly writer: string;
  range?: MemoryRange;
  transient: boolean;
  /** Expiry of the write lock, then of the leases. */
  expiresAt: number;
  leases: Set<ModelLease>;
  dirtyMarks: number;
  /** The lowest rank is evicted first. */
  rank: number;
}

/** Answer of the device, once there is one. */
interface Answer {
  value: boolean | undefined;
}

/** Objects finished together that become resident together. */
interface Fill {
  readonly entries: readonly ModelEntry[];
  readonly given: readonly ModelEntry[];
  readonly statuses: readonly L1Status[];
  readonly answer: Answer;
  /** Answers about their slabs. */
  readonly slabs: readonly Answer[];
  readonly isRead: boolean;
  /** The outcome, once there is one. */
  leases: (L1Status | ModelLease)[] | undefined;
}

interface ModelLease {
  readonly entry: ModelEntry;
}

/** Model of an L1Cache for objects of one size; keys are numbers. */
class Model {
  now = 0;
  capacity = CAPACITY;
  isLost = false;
  isDetached = false;
  /** In eviction order. */
  residents: ModelEntry[] = [];
  staged: ModelEntry[] = [];
  /** Finished objects that the device has not confirmed yet. */
  filling: ModelEntry[] = [];
  readonly fills = new Set<Fill>();
  /** Forgotten while leased. */
  doomedResidents: ModelEntry[] = [];
  /** Forgotten while staged. */
  doomedStaged: ModelEntry[] = [];
  readonly pinned = new Set<number>();
  readonly quotas = new Map<string, number>();
  events: string[] = [];
  evicted = 0;
  outOfMemory = 0;
  quotaExceeded = 0;
  failedSlabs = 0;
  unfilled = 0;
  /** Answers of the device about its slabs; slabs without an entry are confirmed. */
  slabs = new Map<DeviceBuffer, Answer>();
  #uses = 0;

  reserve(
    keys: readonly number[],
    writer: string,
    transient: boolean,
    rangeOf: (i: number) => MemoryRange | undefined,
  ): (L1Status | ModelEntry)[] {
    if (this.isLost) return keys.map(() => "device-lost");
    const writable = keys.map((n, i) => keys.indexOf(n) === i && this.#isWritable(n, writer));
    const wanted = keys.filter((_, i) => writable[i]);
    const failure = wanted.length === 0 ? null : this.#makeRoom(wanted, keys);
    if (failure !== null) return keys.map(() => failure);
    return keys.map((n, i) => {
      if (writable[i] !== true) return "already-present";
      const expiresAt = this.now + WRITE_TTL_MS;
      const entry: ModelEntry = {
        n,
        writer,
        transient,
        expiresAt,
        leases: new Set(),
        dirtyMarks: 0,
        rank: 0,
      };
      entry.range = rangeOf(i) as MemoryRange;
      this.staged.push(entry);
      return entry;
    });
  }

  /** Returns the fill, which may wait for the device. */
  finish(entries: readonly ModelEntry[], answer: Answer, isRead: boolean): Fill {
    const slabs = entries.filter((each) => this.staged.includes(each)).flatMap(({ range }) =>
      this.slabs.get(range?.buffer ?? NO_BUFFER) ?? []
    );
    const isPending = [answer, ...slabs].some(({ value }) => value === undefined);
    for (const entry of entries.toReversed()) {
      if (this.staged.includes(entry)) entry.rank = ++this.#uses;
    }
    const kept: ModelEntry[] = [];
    const statuses = entries.map((entry): L1Status => {
      if (this.isLost) return "device-lost";
      this.doomedStaged = without(this.doomedStaged, entry);
      if (!this.staged.includes(entry)) return "key-not-exist";
      if (!this.isLocked(entry)) return "key-in-wrong-state";
      this.#drop(entry);
      const isThere = ({ n }: ModelEntry): boolean => n === entry.n;
      if (!isPending && answer.value === false) this.unfilled++;
      else if (isPending && ![...this.residents, ...this.filling].some(isThere)) {
        this.filling.push(entry);
        kept.push(entry);
      } else if (!isPending && !this.residents.some(isThere)) {
        this.#admit(entry);
        kept.push(entry);
      }
      return "success";
    });
    const fill: Fill = {
      entries: kept,
      given: entries,
      statuses,
      answer,
      slabs,
      isRead,
      leases: undefined,
    };
    if (isPending) this.fills.add(fill);
    else this.#admitted(fill, kept);
    return fill;
  }

  /** Makes objects resident that the device has confirmed. */
  settle(): void {
    for (const fill of this.fills) {
      const answers = [fill.answer, ...fill.slabs];
      if (answers.some(({ value }) => value === undefined)) continue;
      this.fills.delete(fill);
      const admitted: ModelEntry[] = [];
      for (const entry of fill.entries) {
        if (!this.filling.includes(entry)) continue;
        this.filling = without(this.filling, entry);
        if (fill.answer.value !== true) this.unfilled++;
        else if (!this.isLost && this.#find(entry.n) === undefined) {
          this.#admit(entry);
          admitted.push(entry);
        }
      }
      this.#admitted(fill, admitted);
    }
  }

  #admit(entry: ModelEntry): void {
    entry.expiresAt = -Infinity;
    this.residents.push(entry);
    this.#sort();
  }

  #admitted(fill: Fill, admitted: readonly ModelEntry[]): void {
    if (fill.isRead) {
      fill.leases = fill.statuses.map((status, i) =>
        status === "success" ? this.#lease(this.#find((fill.given[i] as ModelEntry).n)) : status
      );
    }
    const written = admitted.filter(({ transient }) => !transient).map(({ n }) => n);
    if (!fill.isRead && written.length > 0) this.events.push(`written ${written}`);
    if (admitted.length > 0) this.events.push("admitted");
  }

  #sort(): void {
    this.residents.sort((a, b) => a.rank - b.rank);
  }

  abandon(entries: readonly ModelEntry[]): L1Status[] {
    return entries.map((entry) => {
      this.doomedStaged = without(this.doomedStaged, entry);
      if (!this.staged.includes(entry)) return "key-not-exist";
      this.#drop(entry);
      return "success";
    });
  }

  read(keys: readonly number[]): (L1Status | ModelLease)[] {
    return keys.map((n) => this.#lease(this.#find(n)));
  }

  giveUp(leases: readonly ModelLease[]): L1Status[] {
    return leases.map((lease) => {
      const { entry } = lease;
      if (!this.#isReadable(entry)) return "key-not-exist";
      if (!this.isLeased(lease)) return "key-in-wrong-state";
      entry.leases.delete(lease);
      if (entry.leases.size > 0) return "success";
      if (this.doomedResidents.includes(entry)) {
        this.doomedResidents = without(this.doomedResidents, entry);
      } else if (entry.transient && this.#isEvictable(entry)) this.#remove(entry, "temporary");
      return "success";
    });
  }

  touch(keys: readonly number[]): void {
    for (const n of keys.toReversed()) {
      const entry = this.#find(n) ?? this.filling.find((each) => each.n === n);
      if (entry !== undefined) entry.rank = ++this.#uses;
    }
    this.#sort();
  }

  delete(keys: readonly number[]): L1Status[] {
    return keys.map((n) => {
      const stays = (each: ModelEntry): boolean => each.n !== n || this.isLocked(each);
      this.staged = this.staged.filter(stays);
      this.filling = this.filling.filter(stays);
      const entry = this.#find(n);
      if (entry === undefined) {
        const isIncoming = this.incoming.some((each) => each.n === n);
        return isIncoming ? "key-is-locked" : "key-not-exist";
      }
      if (entry.dirtyMarks > 0 || this.isReading(entry)) return "key-is-locked";
      this.#remove(entry, "deleted");
      return "success";
    });
  }

  clear(): void {
    this.#reclaim();
    for (const each of this.residents) if (this.#isEvictable(each)) this.#remove(each, "deleted");
  }

  forget(keys: readonly number[]): { objects: number; bytes: number } {
    const resident = this.residents.filter(({ n }) => keys.includes(n));
    const staged = this.staged.filter(({ n }) => keys.includes(n));
    for (const entry of resident) {
      this.#remove(entry, "forgotten");
      if (this.isReading(entry)) this.doomedResidents.push(entry);
    }
    for (const entry of staged) {
      this.#drop(entry);
      if (this.isLocked(entry)) this.doomedStaged.push(entry);
    }
    const filling = this.filling.filter(({ n }) => keys.includes(n));
    for (const entry of filling) this.filling = without(this.filling, entry);
    const objects = resident.length + staged.length + filling.length;
    return { objects, bytes: objects * SIZE };
  }

  release(keys: readonly number[]): void {
    for (const n of keys) {
      const entry = this.#find(n);
      if (entry === undefined || entry.dirtyMarks > 0 || this.pinned.has(n)) continue;
      if (this.isReading(entry)) entry.transient = true;
      else this.#remove(entry, "released");
    }
  }

  markDirty(keys: readonly number[]): string {
    return keys.map((n) => {
      const entry = this.#find(n);
      if (entry !== undefined) entry.dirtyMarks++;
      return entry === undefined ? "0" : "1";
    }).join("");
  }

  markClean(keys: readonly number[]): void {
    for (const n of keys) {
      const entry = this.#find(n);
      if (entry !== undefined && entry.dirtyMarks > 0) entry.dirtyMarks--;
    }
  }

  evictTo(objects: number): number {
    const before = this.used;
    if (before > objects) this.#reclaim();
    while (this.used > objects && this.#evictFirst(() => true));
    return (before - this.used) * SIZE;
  }

  evictSalt(salt: string, objects: number): number {
    const before = this.usage(salt);
    if (before > objects) this.#reclaim();
    while (this.usage(salt) > objects && this.#evictFirst(({ n }) => saltOf(n) === salt));
    return (before - this.usage(salt)) * SIZE;
  }

  evictionCandidates(objects: number): number[] {
    const evictable = this.residents
      .filter((each) => !this.pinned.has(each.n) && !this.isReading(each));
    return evictable.slice(0, objects).map(({ n }) => n);
  }

  failSlab(buffer: DeviceBuffer, objectsInOthers: number): void {
    const isElsewhere = ({ range }: ModelEntry): boolean => range?.buffer !== buffer;
    this.failedSlabs++;
    this.capacity = objectsInOthers;
    this.staged = this.staged.filter(isElsewhere);
    this.filling = this.filling.filter(isElsewhere);
    this.doomedStaged = this.doomedStaged.filter(isElsewhere);
  }

  detach(): void {
    if (this.isDetached) return;
    this.isDetached = true;
    this.isLost = true;
    for (const each of this.residents) this.#remove(each, "device-lost");
    this.staged = [];
    this.filling = [];
    this.doomedResidents = [];
    this.doomedStaged = [];
    for (const fill of this.fills) fill.leases = fill.given.map(() => "device-lost");
    this.fills.clear();
    this.slabs = new Map();
  }

  attach(): void {
    this.detach();
    this.isDetached = false;
    this.isLost = false;
    this.capacity = CAPACITY;
    this.failedSlabs = 0;
  }

  /** All entries that occupy memory. */
  get all(): ModelEntry[] {
    return [...this.residents, ...this.incoming, ...this.doomedResidents, ...this.doomedStaged];
  }

  get incoming(): ModelEntry[] {
    return [...this.staged, ...this.filling];
  }

  get used(): number {
    return this.all.length;
  }

  get gone(): ModelEntry[] {
    return [...this.doomedResidents, ...this.doomedStaged];
  }

  usage(salt: string): number {
    return [...this.residents, ...this.incoming].filter(({ n }) => saltOf(n) === salt).length;
  }

  isLeased(lease: ModelLease): boolean {
    const { entry } = lease;
    return !this.isLost && this.#isReadable(entry) && entry.leases.has(lease) &&
      this.isReading(entry);
  }

  isReading({ leases, expiresAt }: ModelEntry): boolean {
    return leases.size > 0 && this.now < expiresAt;
  }

  isLocked({ expiresAt }: ModelEntry): boolean {
    return this.now < expiresAt;
  }

  isReserved(entry: ModelEntry): boolean {
    return !this.isLost && this.staged.includes(entry) && this.isLocked(entry);
  }

  #find(n: number): ModelEntry | undefined {
    return this.residents.find((each) => each.n === n);
  }

  #isReadable(entry: ModelEntry): boolean {
    return this.residents.includes(entry) || this.doomedResidents.includes(entry);
  }

  #isEvictable(entry: ModelEntry): boolean {
    return entry.dirtyMarks === 0 && !this.pinned.has(entry.n) && !this.isReading(entry);
  }

  #isWritable(n: number, writer: string): boolean {
    if (this.#find(n) !== undefined) return false;
    const coming = this.filling.find((each) => each.n === n);
    if (coming !== undefined && this.isLocked(coming)) return false;
    if (coming !== undefined) this.filling = without(this.filling, coming);
    const before = this.staged.find((each) => each.n === n && each.writer === writer);
    if (before !== undefined && this.isLocked(before)) return false;
    if (before !== undefined) this.#drop(before);
    return true;
  }

  #makeRoom(wanted: readonly number[], named: readonly number[]): L1Status | null {
    const evictable = (): ModelEntry[] =>
      this.residents.filter((each) => this.#isEvictable(each) && !named.includes(each.n));
    const leave: ModelEntry[] = [];
    for (const salt of new Set(wanted.map(saltOf))) {
      const quota = this.quotas.get(salt) ?? Infinity;
      const count = wanted.filter((n) => saltOf(n) === salt).length;
      const excess = (): number => Math.ceil(this.usage(salt) + count - quota / SIZE);
      if (excess() <= 0) continue;
      this.#reclaim();
      if (excess() <= 0) continue;
      const own = evictable().filter(({ n }) => saltOf(n) === salt).slice(0, excess());
      if (own.length < excess()) {
        this.quotaExceeded++;
        return "quota-exceeded";
      }
      leave.push(...own);
    }
    const missing = (): number => wanted.length - (this.capacity - this.used);
    if (missing() > 0) this.#reclaim();
    if (missing() > evictable().length) {
      this.outOfMemory++;
      return "out-of-memory";
    }
    for (const entry of leave) this.#evict(entry);
    while (missing() > 0 && this.#evictFirst(({ n }) => !named.includes(n)));
    return null;
  }

  #lease(entry: ModelEntry | undefined): L1Status | ModelLease {
    if (this.isLost) return "device-lost";
    if (entry === undefined) return "key-not-exist";
    if (!this.isReading(entry)) entry.leases = new Set();
    const lease = { entry };
    entry.leases.add(lease);
    entry.expiresAt = this.now + READ_TTL_MS;
    return lease;
  }

  #reclaim(): void {
    this.staged = this.staged.filter((each) => this.isLocked(each));
    this.filling = this.filling.filter((each) => this.isLocked(each));
    this.doomedResidents = this.doomedResidents.filter((each) => this.isReading(each));
    this.doomedStaged = this.doomedStaged.filter((each) => this.isLocked(each));
  }

  #evictFirst(test: (entry: ModelEntry) => boolean): boolean {
    const candidate = this.residents.find((each) => this.#isEvictable(each) && test(each));
    if (candidate !== undefined) this.#evict(candidate);
    return candidate !== undefined;
  }

  #evict(entry: ModelEntry): void {
    this.#remove(entry, "evicted");
    this.evicted++;
  }

  #drop(entry: ModelEntry): void {
    this.staged = without(this.staged, entry);
  }

  #remove(entry: ModelEntry, reason: string): void {
    this.residents = without(this.residents, entry);
    this.events.push(`${reason} ${entry.n}`);
  }
}

function without(entries: readonly ModelEntry[], entry: ModelEntry): ModelEntry[] {
  return entries.filter((each) => each !== entry);
}

type Call =
  | {
    /** `write` also finishes what it reserves. */
    readonly kind: "reserve" | "write";
    readonly keys: readonly number[];
    readonly writer: string;
    readonly transient: boolean;
  }
  | {
    /** `finishLater`: the device confirms the work that fills them later. */
    readonly kind: "finish" | "finishLater" | "finishAndRead" | "abandon";
    /** Indices into everything ever staged, latest first. */
    readonly staged: readonly number[];
  }
  | { readonly kind: "answer"; readonly index: number; readonly isFilled: boolean }
  | {
    readonly kind:
      | "read"
      | "touch"
      | "delete"
      | "forget"
      | "release"
      | "markDirty"
      | "markClean"
      | "pin"
      | "unpin";
    readonly keys: readonly number[];
  }
  | { readonly kind: "giveUp"; readonly leases: readonly number[] }
  | { readonly kind: "advance"; readonly ms: number }
  | { readonly kind: "evictTo" | "evictionCandidates"; readonly objects: number }
  | { readonly kind: "evictSalt"; readonly salt: string; readonly objects: number }
  | { readonly kind: "quota"; readonly salt: string; readonly bytes: number | null }
  | { readonly kind: "failSlab" | "confirmSlab"; readonly index: number }
  | { readonly kind: "clear" | "lose" | "detach" | "attach" };

/** A cache, its model, and all leases and staged objects of both so far. */
class Pair {
  readonly model = new Model();
  readonly l1: L1Cache;
  readonly #events: string[] = [];
  readonly #leases: { readonly real: L1Lease; readonly model: ModelLease }[] = [];
  readonly #staged: { readonly real: StagedObject; readonly model: ModelEntry }[] = [];
  readonly #questions: { readonly fill: Fill; readonly tell: (isFilled: boolean) => void }[] = [];
  /** Late outcomes, actual and expected. */
  readonly #outcomes: { readonly real: readonly ReadReservation[]; readonly fill: Fill }[] = [];
  readonly #unanswered = new Set<Fill>();
  readonly #answersLate: boolean;
  #device: FragileDevice;

  constructor(slabBytes: number, answersLate: boolean) {
    this.#answersLate = answersLate;
    this.#device = new FragileDevice({ answersLate });
    const { model } = this;
    const clock: Clock = { now: () => model.now, schedule: () => () => {} };
    this.l1 = new L1Cache({
      device: this.#device,
      clock,
      capacityBytes: CAPACITY * SIZE,
      slabBytes,
      policy: new LruPolicy(),
      quotaOf: (salt) => model.quotas.get(salt),
      writeTtlMs: WRITE_TTL_MS,
      readTtlMs: READ_TTL_MS,
    });
    this.l1.addListener({
      written: (objects) =>
        this.#events.push(`written ${objects.map(({ key }) => NUMBERS.get(key.id))}`),
      admitted: () => this.#events.push("admitted"),
      removed: (key, reason) => this.#events.push(`${reason} ${NUMBERS.get(key.id)}`),
    });
  }

  async run(call: Call): Promise<void> {
    await this.#run(call);
    await microtasks();
    this.model.settle();
    for (const { real, fill } of this.#outcomes.splice(0)) {
      this.#unanswered.delete(fill);
      this.#keep(real, fill.leases ?? []);
    }
    for (const fill of this.#unanswered) assert(this.model.fills.has(fill), "it waits in vain");
  }

  #run(call: Call): void | Promise<void> {
    const { l1, model } = this;
    const keys = "keys" in call ? call.keys.map(keyOf) : [];
    switch (call.kind) {
      case "reserve":
        return void this.#reserve(call);
      case "write":
        return this.#run({ kind: "finish", staged: [...Array(this.#reserve(call)).keys()] });
      case "finish": {
        const [real, expected] = this.#chosen(call.staged);
        const { statuses } = model.finish(expected, { value: true }, false);
        return assertEquals(l1.finishWrite(real), statuses);
      }
      case "finishLater": {
        const [real, expected] = this.#chosen(call.staged);
        // Until the device confirms it, other bytes are there.
        const own = expected.filter((entry) => model.isReserved(entry));
        for (const { range } of own) this.#device.upload(range as MemoryRange, [POISON]);
        const { promise, resolve } = Promise.withResolvers<boolean>();
        const fill = model.finish(expected, { value: undefined }, false);
        assertEquals(l1.finishWrite(real, promise), fill.statuses);
        return void this.#questions.push({ fill, tell: resolve });
      }
      case "answer": {
        const index = call.index % Math.max(1, this.#questions.length);
        const [question] = this.#questions.splice(index, 1);
        if (question === undefined) return;
        const { fill, tell } = question;
        for (const { n, range } of call.isFilled ? fill.entries : []) {
          const isStill = model.filling.some((each) => each.range === range);
          if (isStill) this.#device.upload(range as MemoryRange, [bytesOf(n)]);
        }
        fill.answer.value = call.isFilled;
        return tell(call.isFilled);
      }
      case "finishAndRead": {
        const [real, expected] = this.#chosen(call.staged);
        const fill = model.finish(expected, { value: true }, true);
        const reservations = l1.finishWriteAndReserveRead(real);
        assertEquals(Array.isArray(reservations), fill.leases !== undefined, "known at once");
        if (Array.isArray(reservations)) return this.#keep(reservations, fill.leases ?? []);
        this.#unanswered.add(fill);
        reservations.then((real) => this.#outcomes.push({ real, fill }));
        return;
      }
      case "abandon": {
        const [real, expected] = this.#chosen(call.staged);
        return assertEquals(l1.finishWriteAndDelete(real), model.abandon(expected));
      }
      case "read":
        return this.#keep(l1.reserveRead(keys), model.read(call.keys));
      case "touch":
        l1.touch(keys);
        return model.touch(call.keys);
      case "delete":
        return assertEquals(l1.delete(keys), model.delete(call.keys));
      case "giveUp": {
        const leases = call.leases.flatMap((index) =>
          this.#leases.at(-1 - index % Math.max(1, this.#leases.length)) ?? []
        );
        const expected = model.giveUp(leases.map((lease) => lease.model));
        return assertEquals(l1.finishRead(leases.map(({ real }) => real)), expected);
      }
      case "advance":
        model.now += call.ms;
        return;
      case "clear":
        l1.clear();
        return model.clear();
      case "forget": {
        const test = (key: ObjectKey): boolean => call.keys.includes(NUMBERS.get(key.id) ?? -1);
        const named = call.keys.length % 2 === 0 ? keys : undefined;
        return assertEquals(l1.forget(test, named), model.forget(call.keys));
      }
      case "release":
        l1.release(keys);
        return model.release(call.keys);
      case "markDirty":
        return assertEquals(l1.markDirty(keys).toString(), model.markDirty(call.keys));
      case "markClean":
        l1.markClean(keys);
        return model.markClean(call.keys);
      case "pin":
        l1.pin(keys);
        return call.keys.forEach((n) => model.pinned.add(n));
      case "unpin":
        l1.unpin(keys);
        return call.keys.forEach((n) => model.pinned.delete(n));
      case "evictTo":
        return assertEquals(l1.evictTo(call.objects * SIZE), model.evictTo(call.objects));
      case "evictSalt": {
        const { salt, objects } = call;
        return assertEquals(l1.evictSalt(salt, objects * SIZE), model.evictSalt(salt, objects));
      }
      case "evictionCandidates": {
        const candidates = l1.evictionCandidates(call.objects * SIZE).map(({ key }) =>
          NUMBERS.get(key.id)
        );
        return assertEquals(candidates, model.evictionCandidates(call.objects));
      }
      case "quota":
        if (call.bytes === null) model.quotas.delete(call.salt);
        else model.quotas.set(call.salt, call.bytes);
        return;
      case "failSlab":
        return this.#answerSlab(call.index, false);
      case "confirmSlab":
        return this.#answerSlab(call.index, true);
      case "lose":
        this.#device.isLost = true;
        model.isLost = true;
        return;
      case "detach":
        l1.detach();
        return model.detach();
      case "attach":
        return this.#attach();
    }
  }

  /** Compares everything observable. */
  check(): void {
    const { l1, model } = this;
    assertEquals(this.#events.splice(0).sort(), model.events.splice(0).sort(), "events");
    for (const [n, key] of KEYS.entries()) {
      const isResident = model.residents.some((each) => each.n === n);
      if (l1.has(key) !== isResident) throw new Error(`object ${n}: resident ${l1.has(key)}`);
      const isFilling = model.filling.some((each) => each.n === n);
      assert((l1.whenFilled(key) !== undefined) === isFilling, `object ${n}: is filling`);
      const isPinned = l1.pinned.has(key.id);
      if (isPinned !== model.pinned.has(n)) throw new Error(`${n}: protected ${isPinned}`);
    }
    for (const { real, model: entry } of this.#staged) {
      const isReserved = l1.isReserved(real);
      assert(isReserved === model.isReserved(entry), `${entry.n} is reserved: ${isReserved}`);
    }
    for (const { real, model: lease } of this.#leases) {
      const isLeased = l1.isLeased(real);
      assert(isLeased === model.isLeased(lease), `a lease of object ${lease.entry.n}: ${isLeased}`);
      assert(l1.areLeased([real]) === isLeased);
      if (isLeased) this.#checkBytes(real.range, lease.entry.n);
    }
    const places = model.all.map(({ range }) => `${this.#slabNumber(range)} ${range?.byteOffset}`);
    assertEquals(new Set(places).size, places.length, "no range serves two objects");
    this.#checkCounters();
  }

  /** Lets all locks expire: then only dirty and pinned objects can be left. */
  async finish(): Promise<void> {
    for (const { n, range } of this.model.residents) this.#checkBytes(range as MemoryRange, n);
    const all = [...KEYS.keys()];
    for (let i = 0; i < 40 && this.l1.reportStatus().heldCount > 0; i++) {
      await this.run({ kind: "markClean", keys: all });
    }
    await this.run({ kind: "unpin", keys: all });
    await this.run({ kind: "advance", ms: WRITE_TTL_MS });
    await this.run({ kind: "clear" });
    this.check();
    const { usedBytes, fragmentation, slabs, leavingBytes } = this.l1.reportStatus();
    assertEquals([usedBytes, fragmentation, leavingBytes], [0, 0, 0]);
    assertEquals([...this.l1.usageBySalt()], []);
    assert(slabs <= 1);
    this.l1[Symbol.dispose]();
    assertEquals(this.#device.slabs.size, 0);
  }

  #checkCounters(): void {
    const { l1, model } = this;
    const report = l1.reportStatus();
    const usage = SALTS.map((salt) => model.usage(salt) * SIZE);
    assertEquals(SALTS.map((salt) => l1.usedBytesOf(salt)), usage);
    assertEquals(SALTS.map((salt) => l1.usageBySalt().get(salt) ?? 0), usage);
    const held = model.residents.filter(({ dirtyMarks }) => dirtyMarks > 0);
    const visible = [...model.residents, ...model.incoming];
    const expected = {
      isHealthy: !model.isLost && model.failedSlabs === 0,
      totalObjectCount: visible.length,
      writeLockedCount: model.staged.filter((each) => model.isLocked(each)).length,
      readLockedCount: model.residents.filter((each) => model.isReading(each)).length,
      temporaryCount: visible.filter(({ transient }) => transient).length,
      stagingObjectCount: model.staged.length,
      stagingBytes: model.staged.length * SIZE,
      fillingObjectCount: model.filling.length,
      fillingBytes: model.filling.length * SIZE,
      heldCount: held.length,
      heldBytes: held.length * SIZE,
      protectedCount: model.pinned.size,
      leavingCount: model.gone.length,
      leavingBytes: model.gone.length * SIZE,
      usedBytes: model.used * SIZE,
      evictedCount: model.evicted,
      outOfMemoryCount: model.outOfMemory,
      quotaExceededCount: model.quotaExceeded,
      failedSlabCount: model.failedSlabs,
      unfilledCount: model.unfilled,
    };
    const names = Object.keys(expected) as (keyof typeof expected)[];
    if (names.every((name) => report[name] === expected[name])) return;
    assertEquals(Object.fromEntries(names.map((name) => [name, report[name]])), expected);
  }

  /**
   * Reserves and writes at once. The write must not hit the range of a leased object, or its bytes
   * would be wrong. Returns how many were staged.
   */
  #reserve({ keys, writer, transient }: Call & { kind: "reserve" | "write" }): number {
    const real = this.l1.reserveWrite(keys.map(keyOf), LAYOUT, { writer, transient });
    const staged = real.map((each) => each.status === "success" ? each.staged : undefined);
    const expected = this.model.reserve(keys, writer, transient, (i) => staged[i]?.range);
    assertEquals(
      real.map(({ status }) => status),
      expected.map((each) => typeof each === "string" ? each : "success"),
    );
    let count = 0;
    // From the end, since a chain is finished from its head.
    for (const [i, entry] of [...expected.entries()].toReversed()) {
      const object = staged[i];
      if (typeof entry === "string" || object === undefined) continue;
      this.#device.upload(object.range, [bytesOf(entry.n)]);
      this.#meet(object.range.buffer);
      this.#staged.push({ real: object, model: entry });
      count++;
    }
    return count;
  }

  #chosen(indices: readonly number[]): [StagedObject[], ModelEntry[]] {
    const chosen = indices.flatMap((index) => this.#staged.at(-1 - index) ?? []);
    return [chosen.map(({ real }) => real), chosen.map(({ model }) => model)];
  }

  #keep(
    real: readonly ({ status: "success"; lease: L1Lease } | { status: L1Status })[],
    expected: readonly (L1Status | ModelLease)[],
  ): void {
    assertEquals(
      real.map(({ status }) => status),
      expected.map((each) => typeof each === "string" ? each : "success"),
    );
    for (const [i, reservation] of real.entries()) {
      const lease = expected[i];
      if (!("lease" in reservation) || lease === undefined || typeof lease === "string") continue;
      assertEquals(reservation.lease.key.id, KEYS[lease.entry.n]?.id);
      this.#leases.push({ real: reservation.lease, model: lease });
    }
  }

  /** Makes the device answer later about a new slab. */
  #meet(buffer: DeviceBuffer): void {
    if (!this.#answersLate || this.model.slabs.has(buffer)) return;
    this.model.slabs.set(buffer, { value: undefined });
  }

  #answerSlab(index: number, isValid: boolean): void {
    const slabs = [...this.#device.slabs];
    const slab = slabs[index % Math.max(1, slabs.length)];
    if (slab === undefined || this.model.slabs.get(slab.buffer)?.value !== undefined) return;
    if (!this.#answersLate) return;
    this.#meet(slab.buffer);
    const answer = this.model.slabs.get(slab.buffer);
    if (answer !== undefined) answer.value = isValid;
    if (!isValid) {
      const bytesInOthers = this.l1.reportStatus().slabBytes - slab.byteLength;
      this.model.failSlab(slab.buffer, bytesInOthers / SIZE);
    }
    this.#device.answer(slab, isValid);
  }

  #attach(): void {
    const device = new FragileDevice({ answersLate: this.#answersLate });
    if (!this.model.isLost) {
      assertThrows(() => this.l1.attach(device), Error, "detach");
      return;
    }
    const old = this.#device;
    const oldSlabs = [...old.slabs];
    this.l1.attach(device);
    this.model.attach();
    this.#device = device;
    assertEquals(old.slabs.size, 0, "the old device's memory is released");
    // Must not affect the new device.
    for (const slab of oldSlabs) old.answer(slab, false);
  }

  #slabNumber(range: MemoryRange | undefined): number {
    return [...this.#device.slabs].findIndex(({ buffer }) => buffer === range?.buffer);
  }

  #checkBytes({ buffer, byteOffset, byteLength }: MemoryRange, n: number): void {
    const bytes = (buffer as Uint8Array).subarray(byteOffset, byteOffset + byteLength);
    assertSameBytes(bytes, bytesOf(n), `object ${n}`);
  }
}

function keyOf(n: number): ObjectKey {
  return KEYS[n] as ObjectKey;
}

function bytesOf(n: number): Uint8Array<ArrayBuffer> {
  return BYTES[n] as Uint8Array<ArrayBuffer>;
}

const keys = fc.oneof(
  fc.array(fc.nat(KEYS.length - 1), { minLength: 1, maxLength: 3 }),
  // Chains, as engines use them.
  fc.tuple(fc.nat(KEYS.length - 1), fc.integer({ min: 1, max: 7 })).map(([first, count]) =>
    [...KEYS.keys()].slice(first, first + count)
  ),
);
const writer = fc.constantFrom(...WRITERS);
const staged = fc.oneof(
  fc.array(fc.nat(12), { minLength: 1, maxLength: 4 }),
  fc.integer({ min: 1, max: 7 }).map((count) => [...Array(count).keys()]),
);
const salt = fc.constantFrom(...SALTS);

function kind<const K extends string>(...kinds: K[]): fc.Arbitrary<K> {
  return fc.constantFrom(...kinds);
}

const calls: fc.Arbitrary<Call> = fc.oneof(
  {
    weight: 40,
    arbitrary: fc.record({
      kind: kind("write", "write", "reserve"),
      keys,
      writer,
      transient: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, fc.constant(true)),
    }),
  },
  {
    weight: 16,
    arbitrary: fc.record({
      kind: kind("finish", "finishLater", "finishAndRead", "finishAndRead"),
      staged,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: kind("answer"),
      index: fc.nat(4),
      isFilled: fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, fc.constant(false)),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: kind("abandon"), staged }) },
  {
    weight: 20,
    arbitrary: fc.record({ kind: kind("read", "read", "touch", "delete"), keys }),
  },
  {
    weight: 24,
    arbitrary: fc.record({
      kind: kind("forget", "release", "markDirty", "markClean", "pin", "unpin"),
      keys,
    }),
  },
  {
    weight: 12,
    arbitrary: fc.record({
      kind: kind("giveUp"),
      leases: fc.array(fc.nat(12), { minLength: 1, maxLength: 4 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: kind("advance"),
      ms: fc.constantFrom(1, READ_TTL_MS - 1, READ_TTL_MS, WRITE_TTL_MS - 1, WRITE_TTL_MS),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: kind("evictTo", "evictionCandidates"),
      objects: fc.nat(CAPACITY),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: kind("evictSalt"), salt, objects: fc.nat(CAPACITY) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: kind("quota"),
      salt,
      bytes: fc.option(
        fc.integer({ min: 2, max: 2 * CAPACITY }).map((halves) => halves * SIZE / 2),
      ),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: kind("confirmSlab", "confirmSlab", "confirmSlab", "failSlab"),
      index: fc.nat(CAPACITY),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: kind("lose", "detach", "clear") }) },
  { weight: 2, arbitrary: fc.record({ kind: kind("attach") }) },
);

Deno.test("L1Cache does what its model does, whatever is called in which order", async () => {
  const slabBytes = fc.constantFrom(SIZE, 2 * SIZE, CAPACITY * SIZE);
  const sequences = fc.array(calls, { minLength: 10, maxLength: 40, size: "max" });
  await fc.assert(
    fc.asyncProperty(slabBytes, fc.boolean(), sequences, async (slab, answersLate, sequence) => {
      const pair = new Pair(slab, answersLate);
      for (const call of sequence) {
        await pair.run(call);
        pair.check();
      }
      await pair.finish();
    }),
    runs(3_000),
  );
});
