import { assert, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { L1Cache, type L1Pin, type L1Status } from "../../../src/l1/l1_cache.ts";
import { LruPolicy } from "../../../src/l1/lru.ts";
import { HostDevice } from "../../../src/memory/host_device.ts";
import type { Clock } from "../../../src/runtime/clock.ts";
import { assertSameBytes } from "../../support/bytes.ts";
import { testBytes, testKeys, testLayout } from "../../support/objects.ts";
import { numRuns } from "../../support/runs.ts";

// Random calls of an L1Cache beside a model that is too simple to be wrong: lists that are searched
// from the start, and no memory. Every status, event, counter and byte is compared.

const SIZE = 256;
const CAPACITY = 6;
const KEYS = testKeys(10);
const BYTES = KEYS.map((key) => testBytes(key, SIZE));
const LAYOUT = testLayout(SIZE);
const WRITERS = ["store", "prefetch:1", "prefetch:2"];
const WRITE_TTL_MS = 20;
const READ_TTL_MS = 10;

interface Resident {
  readonly n: number;
  readonly temporary: boolean;
  pins: Set<ModelPin>;
  expiresAt: number;
}

interface Staged {
  readonly n: number;
  readonly writer: string;
  readonly temporary: boolean;
  readonly expiresAt: number;
}

interface ModelPin {
  readonly resident: Resident;
}

/** What an L1Cache promises, for objects of one size; keys are numbers. */
class Model {
  now = 0;
  /** The first to leave comes first. */
  residents: Resident[] = [];
  staged: Staged[] = [];
  events: string[] = [];
  evicted = 0;
  outOfMemory = 0;

  reserve(keys: readonly number[], writer: string, temporary: boolean): L1Status[] {
    const mine: Staged[] = [];
    const statuses: L1Status[] = [];
    for (const n of keys) {
      const before = this.#findStaged(n, writer);
      if (this.#find(n) !== undefined || (before !== undefined && this.isWriting(before))) {
        statuses.push("key-not-writable");
        continue;
      }
      if (before !== undefined) this.#drop(before);
      if (!this.#makeRoom()) {
        for (const each of mine) this.#drop(each);
        this.outOfMemory++;
        return keys.map(() => "out-of-memory");
      }
      const entry = { n, writer, temporary, expiresAt: this.now + WRITE_TTL_MS };
      this.staged.push(entry);
      mine.push(entry);
      statuses.push("success");
    }
    return statuses;
  }

  finish(keys: readonly number[], writer: string): L1Status[] {
    const admitted: Resident[] = [];
    const statuses = keys.map((n) => this.#admit(n, writer, admitted));
    this.residents.push(...admitted.toReversed());
    const written = admitted.filter(({ temporary }) => !temporary).map(({ n }) => n);
    if (written.length > 0) this.events.push(`written ${written}`);
    return statuses;
  }

  finishAndRead(keys: readonly number[], writer: string): (L1Status | ModelPin)[] {
    const admitted: Resident[] = [];
    const pins = keys.map((n) => {
      const status = this.#admit(n, writer, admitted);
      if (status !== "success") return status;
      return this.#pin(this.#find(n) ?? admitted.find((each) => each.n === n));
    });
    this.residents.push(...admitted.toReversed());
    return pins;
  }

  abandon(keys: readonly number[], writer: string): L1Status[] {
    return keys.map((n) => {
      const entry = this.#findStaged(n, writer);
      if (entry === undefined) return "key-not-exist";
      this.#drop(entry);
      return "success";
    });
  }

  read(keys: readonly number[]): (L1Status | ModelPin)[] {
    return keys.map((n) => this.#pin(this.#find(n)));
  }

  release(pins: readonly ModelPin[]): L1Status[] {
    return pins.map((pin) => {
      const { resident } = pin;
      if (!this.residents.includes(resident)) return "key-not-exist";
      if (!this.isPinned(pin)) return "key-in-wrong-state";
      resident.pins.delete(pin);
      if (resident.pins.size === 0 && resident.temporary) this.#remove(resident, "temporary");
      return "success";
    });
  }

  touch(keys: readonly number[]): void {
    for (const n of keys.toReversed()) {
      const resident = this.#find(n);
      if (resident === undefined) continue;
      this.residents = [...this.residents.filter((each) => each !== resident), resident];
    }
  }

  delete(keys: readonly number[]): L1Status[] {
    return keys.map((n) => {
      this.staged = this.staged.filter((each) => each.n !== n || this.isWriting(each));
      const resident = this.#find(n);
      if (resident === undefined) {
        return this.staged.some((each) => each.n === n) ? "key-is-locked" : "key-not-exist";
      }
      if (this.isReading(resident)) return "key-is-locked";
      this.#remove(resident, "deleted");
      return "success";
    });
  }

  clear(): void {
    this.#reclaim();
    for (const each of this.residents) if (!this.isReading(each)) this.#remove(each, "deleted");
  }

  isPinned(pin: ModelPin): boolean {
    const { resident } = pin;
    return this.residents.includes(resident) && resident.pins.has(pin) && this.isReading(resident);
  }

  isReading({ pins, expiresAt }: Resident): boolean {
    return pins.size > 0 && this.now < expiresAt;
  }

  isWriting({ expiresAt }: Staged): boolean {
    return this.now < expiresAt;
  }

  #find(n: number): Resident | undefined {
    return this.residents.find((each) => each.n === n);
  }

  #findStaged(n: number, writer: string): Staged | undefined {
    return this.staged.find((each) => each.n === n && each.writer === writer);
  }

  #admit(n: number, writer: string, admitted: Resident[]): L1Status {
    const entry = this.#findStaged(n, writer);
    if (entry === undefined) return "key-not-exist";
    if (!this.isWriting(entry)) return "key-in-wrong-state";
    this.#drop(entry);
    if (this.#find(n) === undefined) {
      admitted.push({ n, temporary: entry.temporary, pins: new Set(), expiresAt: 0 });
    }
    return "success";
  }

  #pin(resident: Resident | undefined): L1Status | ModelPin {
    if (resident === undefined) return "key-not-exist";
    if (!this.isReading(resident)) resident.pins = new Set();
    const pin = { resident };
    resident.pins.add(pin);
    resident.expiresAt = this.now + READ_TTL_MS;
    return pin;
  }

  #makeRoom(): boolean {
    const isFull = (): boolean => this.residents.length + this.staged.length >= CAPACITY;
    if (isFull()) this.#reclaim();
    const victim = this.residents.find((each) => !this.isReading(each));
    if (isFull() && victim !== undefined) {
      this.#remove(victim, "evicted");
      this.evicted++;
    }
    return !isFull();
  }

  #reclaim(): void {
    this.staged = this.staged.filter((each) => this.isWriting(each));
  }

  #drop(entry: Staged): void {
    this.staged = this.staged.filter((each) => each !== entry);
  }

  #remove(resident: Resident, reason: string): void {
    this.residents = this.residents.filter((each) => each !== resident);
    this.events.push(`${reason} ${resident.n}`);
  }
}

type Call =
  | {
    readonly kind: "reserve";
    readonly keys: readonly number[];
    readonly writer: string;
    readonly temporary: boolean;
  }
  | {
    readonly kind: "finish" | "finishAndRead" | "abandon";
    readonly keys: readonly number[];
    readonly writer: string;
  }
  | { readonly kind: "read" | "touch" | "delete"; readonly keys: readonly number[] }
  | { readonly kind: "release"; readonly pins: readonly number[] }
  | { readonly kind: "advance"; readonly ms: number }
  | { readonly kind: "clear" };

/** A cache, its model, and the pins of both that were ever handed out. */
class Pair {
  readonly model = new Model();
  readonly l1: L1Cache;
  readonly #events: string[] = [];
  readonly #pins: { readonly real: L1Pin; readonly model: ModelPin }[] = [];

  constructor(device: HostDevice, slabBytes: number) {
    const clock: Clock = { now: () => this.model.now, schedule: () => () => {} };
    this.l1 = new L1Cache({
      device,
      clock,
      capacityBytes: CAPACITY * SIZE,
      slabBytes,
      policy: new LruPolicy(),
      writeTtlMs: WRITE_TTL_MS,
      readTtlMs: READ_TTL_MS,
    });
    const numbers = new Map(KEYS.map(({ id }, n) => [id, n]));
    this.l1.addListener({
      written: (objects) =>
        this.#events.push(`written ${objects.map(({ key }) => numbers.get(key.id))}`),
      removed: (key, reason) => this.#events.push(`${reason} ${numbers.get(key.id)}`),
    });
  }

  run(call: Call): void {
    const { l1, model } = this;
    const keys = "keys" in call ? call.keys.map((n) => KEYS[n] ?? this.#fail()) : [];
    switch (call.kind) {
      case "reserve":
        return this.#reserve(call);
      case "finish":
        return assertEquals(l1.finishWrite(keys, call), model.finish(call.keys, call.writer));
      case "finishAndRead":
        return this.#keep(
          l1.finishWriteAndReserveRead(keys, call),
          model.finishAndRead(call.keys, call.writer),
        );
      case "abandon":
        return assertEquals(
          l1.finishWriteAndDelete(keys, call),
          model.abandon(call.keys, call.writer),
        );
      case "read":
        return this.#keep(l1.reserveRead(keys), model.read(call.keys));
      case "touch":
        l1.touch(keys);
        return model.touch(call.keys);
      case "delete":
        return assertEquals(l1.delete(keys), model.delete(call.keys));
      case "release": {
        const pins = call.pins.flatMap((index) =>
          this.#pins.at(-1 - index % Math.max(1, this.#pins.length)) ?? []
        );
        const expected = model.release(pins.map((pin) => pin.model));
        return assertEquals(l1.finishRead(pins.map(({ real }) => real)), expected);
      }
      case "advance":
        model.now += call.ms;
        return;
      case "clear":
        l1.clear();
        return model.clear();
    }
  }

  /** Compares all that can be seen from outside. */
  check(): void {
    const { l1, model } = this;
    assertEquals(this.#events.splice(0).sort(), model.events.splice(0).sort(), "events");
    for (const [n, key] of KEYS.entries()) {
      assertEquals(l1.has(key), model.residents.some((each) => each.n === n), `object ${n}`);
    }
    for (const { real, model: pin } of this.#pins) {
      assertEquals(l1.isPinned(real), model.isPinned(pin), `a pin of object ${pin.resident.n}`);
      if (l1.isPinned(real)) this.#checkBytes(real, pin.resident.n);
    }
    const all = [...model.residents, ...model.staged];
    const { totalObjectCount, writeLockedCount, readLockedCount, temporaryCount, ...report } = l1
      .reportStatus();
    assertEquals({
      totalObjectCount,
      writeLockedCount,
      readLockedCount,
      temporaryCount,
      stagingObjectCount: report.stagingObjectCount,
      stagingBytes: report.stagingBytes,
      usedBytes: report.usedBytes,
      evictedCount: report.evictedCount,
      outOfMemoryCount: report.outOfMemoryCount,
    }, {
      totalObjectCount: all.length,
      writeLockedCount: model.staged.filter((each) => model.isWriting(each)).length,
      readLockedCount: model.residents.filter((each) => model.isReading(each)).length,
      temporaryCount: all.filter(({ temporary }) => temporary).length,
      stagingObjectCount: model.staged.length,
      stagingBytes: model.staged.length * SIZE,
      usedBytes: all.length * SIZE,
      evictedCount: model.evicted,
      outOfMemoryCount: model.outOfMemory,
    });
  }

  /** Lets all locks expire: after that, nothing can be left. */
  finish(): void {
    this.run({ kind: "advance", ms: WRITE_TTL_MS });
    this.run({ kind: "clear" });
    this.check();
    const { usedBytes, fragmentation, slabs } = this.l1.reportStatus();
    assertEquals([usedBytes, fragmentation], [0, 0]);
    assert(slabs <= 1);
  }

  /** Reserves, and writes at once: into nobody else's range, or a pin's bytes would be wrong. */
  #reserve({ keys, writer, temporary }: Call & { kind: "reserve" }): void {
    const options = { writer, temporary };
    const real = this.l1.reserveWrite(keys.map((n) => KEYS[n] ?? this.#fail()), LAYOUT, options);
    assertEquals(real.map(({ status }) => status), this.model.reserve(keys, writer, temporary));
    for (const [i, reservation] of real.entries()) {
      if (reservation.status !== "success") continue;
      this.l1.device.upload(reservation.range, [BYTES[keys[i] ?? -1] ?? this.#fail()]);
    }
  }

  #keep(
    real: readonly ({ status: "success"; pin: L1Pin } | { status: L1Status })[],
    expected: readonly (L1Status | ModelPin)[],
  ): void {
    assertEquals(
      real.map(({ status }) => status),
      expected.map((each) => typeof each === "string" ? each : "success"),
    );
    for (const [i, reservation] of real.entries()) {
      const pin = expected[i];
      if (!("pin" in reservation) || pin === undefined || typeof pin === "string") continue;
      assertEquals(reservation.pin.key.id, KEYS[pin.resident.n]?.id);
      this.#pins.push({ real: reservation.pin, model: pin });
    }
  }

  #checkBytes({ range }: L1Pin, n: number): void {
    const { buffer, byteOffset, byteLength } = range;
    const bytes = (buffer as Uint8Array).subarray(byteOffset, byteOffset + byteLength);
    assertSameBytes(bytes, BYTES[n] ?? this.#fail(), `object ${n}`);
  }

  #fail(): never {
    throw new Error("The test is wrong");
  }
}

const keys = fc.oneof(
  fc.array(fc.nat(KEYS.length - 1), { minLength: 1, maxLength: 3 }),
  // Chains, as engines use them.
  fc.tuple(fc.nat(KEYS.length - 1), fc.integer({ min: 1, max: 7 })).map(([first, count]) =>
    [...KEYS.keys()].slice(first, first + count)
  ),
);
const writer = fc.constantFrom(...WRITERS);
const calls: fc.Arbitrary<Call> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("reserve" as const),
      keys,
      writer,
      temporary: fc.oneof({ weight: 4, arbitrary: fc.constant(false) }, fc.constant(true)),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constantFrom("finish" as const, "finishAndRead" as const, "abandon" as const),
      keys,
      writer,
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constantFrom("read" as const, "touch" as const, "delete" as const),
      keys,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("release" as const),
      pins: fc.array(fc.nat(12), { minLength: 1, maxLength: 4 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("advance" as const),
      ms: fc.constantFrom(1, READ_TTL_MS - 1, READ_TTL_MS, WRITE_TTL_MS - 1, WRITE_TTL_MS),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: "clear" as const }) },
);

Deno.test("L1Cache does what its model does, whatever is called in which order", () => {
  const slabBytes = fc.constantFrom(SIZE, 2 * SIZE, CAPACITY * SIZE);
  const sequences = fc.array(calls, { maxLength: 80, size: "max" });
  fc.assert(
    fc.property(slabBytes, sequences, (slab, sequence) => {
      const pair = new Pair(new HostDevice(), slab);
      for (const call of sequence) {
        pair.run(call);
        pair.check();
      }
      pair.finish();
    }),
    numRuns(2500),
  );
});
