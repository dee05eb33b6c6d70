import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { StagedObject } from "../../src/l1/l1_cache.ts";
import type { CacheHit } from "../../src/cache_hit.ts";
import type { KeyGroup } from "../../src/prefetch/key_group.ts";
import { contentOf, MODELS, rowsOf, type SimModel } from "./sim_content.ts";
import { SimHit } from "./sim_hit.ts";
import { READ_TTL_MS, WRITE_TTL_MS } from "./sim_kinds.ts";
import type { SimRandom } from "./sim_random.ts";
import type { Life, SimWorld } from "./sim_world.ts";

const SECOND = 1000;
/**
 * Maximum duration of a match without a deadline, which may meet the deadlines of several adapters.
 */
const LONGEST_MATCH_MS = 600 * SECOND;
const MAX_CHUNKS = 24;
const SYSTEM_PROMPTS = 4;
const REMEMBERED_CHATS = 200;

/** Cache salts of the chat users. */
export const SALTS: readonly string[] = ["", "ada", "grace", "edsger"];

/** A chat: the chunks of its prompt so far. */
interface Chat {
  readonly model: SimModel;
  readonly salt: string;
  readonly path: number[];
}

/** Simulated chats: prompts that grow, share prefixes, and are continued later. */
export class SimChats {
  readonly #world: SimWorld;
  /** Chats that started recently, in any order. */
  readonly #chats: Chat[] = [];
  /** Chat that started last. */
  #last: Chat | undefined;
  #lastChunk = 0;

  constructor(world: SimWorld) {
    this.#world = world;
  }

  /** Chunks that are in no prompt. */
  freshPath(length: number): number[] {
    return Array.from({ length }, () => ++this.#lastChunk);
  }

  /** Objects of the tail of some prompt, possibly one that is growing. */
  someKeys(random: SimRandom): ObjectKey[] {
    if (this.#chats.length === 0) return [];
    const chat = random.chance(0.5) ? this.#last : random.pick(this.#chats);
    if (chat === undefined) return [];
    return rowsOf(chat.model, chat.salt, chat.path)
      .flatMap(({ keys }) => keys.slice(random.below(keys.length)));
  }

  /** Starts a chat of some turns within some time. */
  async chat(turns: number, widthMs: number, random: SimRandom): Promise<void> {
    const chat = this.#last = this.#begin(random);
    if (this.#chats.length < REMEMBERED_CHATS) this.#chats.push(chat);
    else this.#chats[random.below(REMEMBERED_CHATS)] = chat;
    // Some start at the same moment.
    await this.#world.clock.sleep(random.chance(0.3) ? 0 : random.next() * widthMs);
    for (let turn = 0; turn < turns; turn++) {
      const more = Math.min(1 + random.below(4), MAX_CHUNKS - chat.path.length);
      chat.path.push(...this.freshPath(more));
      await this.#turn(chat, random);
      await this.#world.clock.sleep(random.exponential(10 * SECOND));
    }
  }

  #begin(random: SimRandom): Chat {
    if (this.#chats.length > 0 && random.chance(0.6)) {
      const { model, salt, path } = random.pick(this.#chats);
      // A part of it with another end, or of another user.
      const length = random.chance(0.6) ? path.length : 1 + random.below(path.length);
      const otherSalt = random.chance(0.1) ? random.pick(SALTS) : salt;
      return { model, salt: otherSalt, path: path.slice(0, length) };
    }
    const system = random.below(SYSTEM_PROMPTS);
    const path = Array.from({ length: 1 + system }, (_, i) => -10 * system - i);
    return { model: random.pick(MODELS), salt: random.pick(SALTS), path };
  }

  /** One request: match, compute, put. */
  async #turn({ model, salt, path }: Chat, random: SimRandom): Promise<void> {
    const { clock } = this.#world;
    const rows = rowsOf(model, salt, path);
    const life = await this.#world.current();
    if (random.chance(0.05)) await this.#world.guarded(life, () => life.cache.storeReady());
    if (random.chance(0.1)) this.#world.spawn(() => this.#warm(life, rows, random.fork()));
    const hit = await this.#match(life, rows, random);
    await clock.sleep(random.exponential(50));
    this.#put(life, rows, random);
    if (hit === undefined) return;
    const hold = random.weighted({ short: 8, long: 3, tooLong: 1 });
    if (hold === "long") await clock.sleep(random.exponential(20 * SECOND));
    if (hold === "tooLong") await clock.sleep(1.5 * READ_TTL_MS);
    if (hit.length > 0) hit.check("at its end");
    hit[Symbol.dispose]();
  }

  async #match(
    life: Life,
    rows: readonly KeyGroup[],
    random: SimRandom,
  ): Promise<SimHit | undefined> {
    const { oracle, clock, trace, stores } = this.#world;
    const turn = oracle.next();
    const startedAt = clock.now();
    const deadlineMs = random.chance(0.15) ? undefined : random.magnitude(5, 10 * SECOND);
    const abort = new AbortController();
    const reason = new Error("simulated: the caller left");
    if (random.chance(0.05)) {
      clock.schedule(() => abort.abort(reason), random.magnitude(1, 2 * SECOND));
    }
    let result: CacheHit;
    try {
      result = await life.cache.matchGroups(rows, {
        signal: abort.signal,
        ...(deadlineMs === undefined ? {} : { deadlineMs }),
      });
    } catch (error) {
      if (error !== reason && !life.isClosing) this.#world.fail("a match was rejected", error);
      trace.note(error === reason ? "match aborted" : "match after close");
      return undefined;
    } finally {
      const [ms, mostMs] = [clock.now() - startedAt, deadlineMs ?? LONGEST_MATCH_MS];
      if (ms > mostMs + 1e-6) this.#world.fail(`a match took ${ms} ms, not ${mostMs} at most`);
    }
    const { length, l1Objects } = result;
    const chunks = rows[0]?.keys.length ?? 0;
    const what = length === 0 ? "miss" : length === chunks ? "full hit" : "partial hit";
    trace.note(what, `${length} of ${chunks}, ${l1Objects} in L1, ${clock.now() - startedAt} ms`);
    const hit = new SimHit(this.#world, life, result, rows, startedAt);
    for (const key of hit.keys().flat()) {
      const fault = oracle.fault(key, turn, stores);
      if (fault !== undefined) this.#world.fail(fault);
    }
    hit.check("at once");
    return hit;
  }

  async #warm(life: Life, rows: readonly KeyGroup[], random: SimRandom): Promise<void> {
    const deadlineMs = random.magnitude(5, 10 * SECOND);
    await this.#world.guarded(life, async () => {
      const { length } = await life.cache.warm(rows, { deadlineMs });
      this.#world.trace.note("warm", `${length} of ${rows[0]?.keys.length}`);
    });
  }

  /** Puts a prompt as an engine does: at once, or with work that ends later. */
  #put(life: Life, rows: readonly KeyGroup[], random: SimRandom): void {
    const { cache, device } = life;
    const { trace, oracle, clock } = this.#world;
    if (life.isClosing) return;
    const how = random.weighted({ atOnce: 16, late: 2, uploadsLate: 2, cancelled: 1 });
    const [turn, reservedAt] = [oracle.next(), clock.now()];
    const reserved = this.#reserve(life, rows);
    const keys = reserved.map(({ key }) => key);
    trace.note(`put ${how}`, `${keys.length} of ${rows[0]?.keys.length}`);
    const upload = (): void => {
      for (const { key, range } of reserved) {
        device.upload(range, [contentOf(key, range.byteLength)]);
      }
    };
    const finish = (): void => {
      if (how === "uploadsLate") upload();
      if (how === "cancelled") return cache.cancelWrite(reserved);
      oracle.put(keys, turn, reservedAt);
      cache.finishWrite(reserved);
      for (const row of rows) cache.touch(row.keys);
    };
    if (how !== "uploadsLate") upload();
    if (how === "atOnce") return finish();
    this.#world.spawn(async () => {
      await clock.sleep(random.between(0, 1.2 * WRITE_TTL_MS));
      // An engine does not write to reservations of another device, or to expired ones.
      const isOurs = life.device === device && !device.isLost && !life.isClosing;
      if (isOurs && clock.now() - reservedAt < WRITE_TTL_MS) finish();
      else trace.note("put given up");
    });
  }

  #reserve({ cache }: Life, rows: readonly KeyGroup[]): StagedObject[] {
    const { trace } = this.#world;
    const reserved: StagedObject[] = [];
    using pins = new DisposableStack();
    for (const { keys } of rows) pins.use(cache.leaseResident(keys));
    for (const chunk of rows[0]?.keys.keys() ?? []) {
      for (const { keys, layout } of rows) {
        const key = keys[chunk] as ObjectKey;
        const [reservation] = cache.reserveWrite([key], layout);
        trace.note(`reserved ${reservation?.status}`);
        if (reservation?.status === "success") reserved.push(reservation.staged);
        else if (reservation?.status !== "already-present") return reserved;
      }
    }
    return reserved;
  }
}
