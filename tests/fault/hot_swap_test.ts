import { assert, assertEquals, assertGreater, assertInstanceOf } from "@std/assert";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import type { CacheHit } from "../../src/cache_hit.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { mapAdapter, moduleOf } from "../support/adapters.ts";
import { assertIdle, put } from "../support/caches.ts";
import { fileOf } from "../support/fs_adapter.ts";
import { countHits } from "../support/fs_cache.ts";
import { assertRanges } from "../support/l1.ts";
import { testKey, testLayout } from "../support/objects.ts";
import { type SeededRandom, seededRandom } from "../support/random.ts";
import { runs } from "../support/runs.ts";
import { tempDirectory } from "../support/temp_directory.ts";

const LAYOUT = testLayout(2048);
const SESSIONS = 10;
const TURNS = 12;
/** Chunks that the sessions of a group have in common. */
const SHARED = 6;
const { seed = Date.now() % 1_000_000 } = runs(1);

/** An adapter that was ever in use, and its actual contents, in service or not. */
interface Place {
  readonly id: number;
  holds(key: ObjectKey): boolean;
  wasDropped: boolean;
}

/** A cache under a replayed load, with the expected result of each request. */
class Replay {
  readonly failures: string[] = [];
  readonly places: Place[] = [];
  readonly cache: TieredCache;
  /** Keys written by an engine. */
  readonly written = new Map<string, ObjectKey>();
  answered = 0;
  servedChunks = 0;
  loadedChunks = 0;
  readonly #waiting: ((isOver: boolean) => void)[] = [];
  readonly #milestones = new Map<number, () => void>();
  #allowed = 0;
  #sent = 0;
  #isOver = false;

  constructor(cache: TieredCache) {
    this.cache = cache;
  }

  /** Lets the sessions send `count` more requests; resolves when all have completed. */
  async send(requests: number): Promise<void> {
    const answered = Promise.withResolvers<void>();
    this.#allowed += requests;
    this.#milestones.set(this.#allowed, answered.resolve);
    for (const proceed of this.#waiting.splice(0)) proceed(false);
    await answered.promise;
  }

  /** Ends the sessions. */
  end(): void {
    this.#isOver = true;
    for (const proceed of this.#waiting.splice(0)) proceed(true);
  }

  /** Adds an adapter on a directory. */
  async addDirectory(path: string): Promise<number> {
    const id = await this.cache.addAdapter({ type: "fs", base_path: path });
    this.places.push({ id, holds: (key) => isFile(fileOf(path, key)), wasDropped: false });
    return id;
  }

  /** Adds an adapter on a Map. */
  async addMap(held: ReadonlyMap<string, unknown>): Promise<number> {
    const id = await this.cache.addAdapter({ type: "map" });
    this.places.push({ id, holds: (key) => held.has(key.id), wasDropped: false });
    return id;
  }

  /** Removes an adapter at once. */
  async drop(id: number): Promise<void> {
    for (const place of this.places) if (place.id === id) place.wasDropped = true;
    await this.cache.removeAdapter(id, { mode: "drop" });
  }

  /** For each key, the adapters that can have it; all, if only L1 can have it. */
  sources(keys: readonly ObjectKey[]): ReadonlySet<Place>[] {
    const inService = new Set(
      this.cache.listAdapters().filter(({ state }) => state === "active" || state === "migrating")
        .map(({ id }) => id),
    );
    return keys.map((key) => {
      if (!this.written.has(key.id)) return new Set();
      const holders = this.places.filter((place) => place.holds(key));
      // No adapter has it yet, so it stays in L1 until one has.
      if (holders.length === 0) return new Set([L1]);
      return new Set(holders.filter(({ id }) => inService.has(id)));
    });
  }

  /** One user: conversations whose prompts grow with every turn. */
  async session(session: number, random: SeededRandom): Promise<void> {
    for (let conversation = 0; !this.#isOver; conversation++) {
      const first = (session * 1_000 + conversation + 1) * 1_000;
      const chain = Array.from(
        { length: TURNS + SHARED },
        (_, chunk) => testKey(chunk < SHARED ? (session % 3) * SHARED + chunk : first + chunk),
      );
      for (let turn = 1; turn <= TURNS; turn++) {
        while (this.#sent >= this.#allowed) {
          const { promise, resolve } = Promise.withResolvers<boolean>();
          this.#waiting.push(resolve);
          if (await promise) return;
        }
        this.#sent++;
        // Mostly from the adapters; otherwise L1 would serve everything.
        if (random.chance(0.6)) this.cache.clearL1();
        const name = `session ${session}, conversation ${conversation}, turn ${turn}`;
        await this.#request(chain.slice(0, turn + SHARED), name);
        this.answered++;
        this.#milestones.get(this.answered)?.();
      }
    }
  }

  async #request(keys: readonly ObjectKey[], name: string): Promise<void> {
    const before = this.sources(keys);
    let hit: CacheHit;
    try {
      hit = await this.cache.match(keys, LAYOUT);
    } catch (error) {
      this.failures.push(`${name}: ${error}`);
      return;
    }
    using _ = hit;
    const isDue = (places: ReadonlySet<Place>): boolean =>
      [...places].some(({ wasDropped }) => !wasDropped);
    const end = before.findIndex((places) => !isDue(places));
    const due = end < 0 ? keys.length : end;
    if (hit.length < due) this.failures.push(`${name}: ${hit.length} instead of ${due} chunks`);
    await assertRanges(this.cache.device, hit.ranges(), keys.slice(0, hit.length))
      .catch((error) => this.failures.push(`${name}: ${error}`));
    this.servedChunks += hit.length;
    this.loadedChunks += hit.length - hit.l1Objects;
    for (const key of put(this.cache, keys.slice(hit.length), LAYOUT)) {
      this.written.set(key.id, key);
    }
  }
}

/** Represents device memory, which is never dropped. */
const L1: Place = { id: -1, holds: () => true, wasDropped: false };

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch (error) {
    assertInstanceOf(error, Deno.errors.NotFound);
    return false;
  }
}

Deno.test(`adapters are added and removed under load without failed requests, seed ${seed}`, async () => {
  await using first = await tempDirectory();
  await using second = await tempDirectory();
  await using third = await tempDirectory();
  const held = new Map<string, Uint8Array<ArrayBuffer>>();
  const options = {
    device: new HostDevice(),
    // Enough for the leases of all sessions and for dirty objects.
    l1: { capacityBytes: 4 * SESSIONS * (TURNS + SHARED) * LAYOUT.byteLength },
    adapters: [moduleOf(() => mapAdapter(held), "map")],
    store: { flushBytes: 8 * LAYOUT.byteLength, flushIdleMs: 5 },
    // Tolerates a busy machine, which must not open circuits.
    timeouts: { lookupMs: 30_000 },
  };
  await using cache = await TieredCache.open(options);
  const replay = new Replay(cache);
  const a = await replay.addDirectory(first.path);

  const random = seededRandom(seed);
  const sessions = Array.from(
    { length: SESSIONS },
    (_, session) => replay.session(session, seededRandom(random.below(2 ** 31))),
  );
  /** Runs an action while the sessions send requests, then lets them send some more. */
  const during = async <T>(work: () => Promise<T>): Promise<T> => {
    const sent = replay.send(30);
    const result = await work();
    await sent;
    await replay.send(10);
    return result;
  };
  await replay.send(50);
  const map = await during(() => replay.addMap(held));
  const b = await during(() => replay.addDirectory(second.path));
  // The first objects are in the first directory only.
  const toTwo = await during(() => cache.removeAdapter(a, { mode: "migrate" }));
  await during(() => cache.removeAdapter(map, { mode: "drain" }));
  const c = await during(() => replay.addDirectory(third.path));
  const toOne = await during(() => cache.removeAdapter(b, { mode: "migrate" }));
  // One with old content, and one with only new objects.
  const again = await during(() => replay.addDirectory(first.path));
  await during(() => replay.drop(again));
  replay.end();
  await Promise.all(sessions);

  assertEquals(replay.failures, []);
  assertEquals(replay.answered, 50 + 8 * 40);
  assertGreater(replay.loadedChunks, replay.answered, "most come from the adapters");
  assertGreater(toTwo.copiedObjects, 0);
  assertGreater(toOne.copiedObjects, 0);
  assertEquals([toTwo.failedObjects, toOne.failedObjects], [0, 0]);
  assertEquals(cache.listAdapters().map(({ id }) => id), [c]);
  await cache.flush();
  assertIdle(cache);
  assertEquals(cache.reportStatus().problems, []);

  // Nothing was lost: the last adapter has everything, for another process too.
  const keys = [...replay.written.values()];
  assertEquals(keys.filter((key) => !isFile(fileOf(third.path, key))), []);
  await using other = await TieredCache.open({
    ...options,
    device: new HostDevice(),
    l2: [{ type: "fs", base_path: third.path }],
  });
  for (const key of keys) assert(await countHits(other, [key], LAYOUT) === 1, key.id);
});
