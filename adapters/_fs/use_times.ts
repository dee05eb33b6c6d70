import type { Bitmap, Clock, ObjectKey } from "../../src/adapter/contract.ts";
import { errnoOf, isReadOnly } from "../_shared/errno.ts";
import type { FileSystem } from "./file_system.ts";
import type { ObjectPaths } from "./object_paths.ts";

/** A chain used again within this time is not recorded again, in milliseconds, … */
const FRESH_MS = 60_000;
/** … unless this share of the capacity was stored meanwhile, which makes it relatively older. */
const FRESH_SHARE = 1 / 16;
/** Times are written after this delay, so that lookups come first, in milliseconds, … */
const DELAY_MS = 1_000;
/** … or as soon as this share of the capacity was stored. */
const DELAY_SHARE = 1 / 64;
/** Max remembered chains, and max objects with a known place in a chain. */
const MAX_REMEMBERED = 16_384;
/** Max objects with pending times. Above it, uses are dropped, so that memory stays bounded. */
const MAX_WAITING = 65_536;
/** Age difference between neighbors of a chain, in milliseconds; later objects are older. */
const STEP_MS = 1;
/** Consecutive permission errors that count as a read-only file system. */
const MAX_REFUSED = 1_000;
/**
 * Pause on a read-only file system, in milliseconds. Unwritten uses are no longer fresh when it ends,
 * so they are recorded again at the next use.
 */
const READ_ONLY_MS = FRESH_MS;
const CONCURRENCY = 2;

/** Objects of a chain that were used together. */
interface ObjectUse {
  readonly keys: readonly ObjectKey[];
  /** Places of the objects in the chain; if left out, they are its front. */
  readonly places?: readonly number[];
  /** Time of the use, in milliseconds since 1970. */
  readonly time: number;
}

/** When a chain was last recorded, and how long it was. */
interface Noted {
  readonly at: number;
  readonly storedBytes: number;
  readonly objects: number;
}

/** How fast the contents of a directory are replaced. */
export interface Turnover {
  /** Total bytes that all processes have stored; only differences are meaningful. */
  readonly storedBytes: number;
  /** Bytes stored after which the contents are completely replaced. */
  readonly capacityBytes: number;
}

/** Options of {@linkcode UseTimes}. */
export interface UseTimesOptions {
  readonly files: FileSystem;
  readonly paths: ObjectPaths;
  /** Current turnover of the directory. */
  readonly turnover: () => Turnover;
  readonly clock: Clock;
}

/**
 * Records uses of objects in the modification times of their files, where every process that shares
 * the directory sees them. Objects further back in a chain count as used earlier, so that ends of
 * chains are evicted first. Times are written in the background.
 */
export class UseTimes {
  readonly #options: UseTimesOptions;
  /** When chains were last recorded, by the id of their last object. */
  readonly #fresh = new Map<string, Noted>();
  /** Places of objects that were missing from a chain: they are likely to be stored soon. */
  readonly #missingPlaces = new Map<string, number>();
  #waiting: ObjectUse[] = [];
  #waitingKeys = 0;
  /** Total bytes stored when the oldest pending use was recorded. */
  #waitingSince = 0;
  #cancelTimer: (() => void) | undefined;
  #writing: Promise<void> | undefined;
  /** The file system was read-only; no times are recorded until then. */
  #pausedUntil = -Infinity;
  /** Number of consecutive permission errors. */
  #refused = 0;
  #isClosed = false;

  constructor(options: UseTimesOptions) {
    this.#options = options;
  }

  /** Records a lookup of a chain: found objects are used now, the others are missing. */
  lookedUp(keys: readonly ObjectKey[], found: Bitmap): void {
    const front = found.countLeadingOnes();
    const places: number[] = [];
    for (let place = front; place < keys.length; place++) {
      if (found.test(place)) places.push(place);
      else remember(this.#missingPlaces, (keys[place] as ObjectKey).id, place);
    }
    if (places.length === 0) return this.used(keys.slice(0, front));
    places.unshift(...Array(front).keys());
    this.#note({ keys: found.gather(keys), places, time: Date.now() });
  }

  /** Records a use of objects that are the front of a chain. */
  used(keys: readonly ObjectKey[]): void {
    this.#note({ keys, time: Date.now() });
  }

  /** Whether a recent lookup found an object missing. */
  wasMissing({ id }: ObjectKey): boolean {
    return this.#missingPlaces.has(id);
  }

  /** Records stores. Objects of no known chain keep the time of the write. */
  stored(keys: readonly ObjectKey[]): void {
    const ofChains = keys.filter((key) => this.wasMissing(key));
    if (ofChains.length === 0) return;
    const places = ofChains.map(({ id }) => this.#missingPlaces.get(id) as number);
    for (const { id } of ofChains) this.#missingPlaces.delete(id);
    this.#note({ keys: ofChains, places, time: Date.now() });
  }

  /** Writes all pending times now. */
  async flush(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (this.#waiting.length > 0) this.#start();
    while (this.#writing !== undefined) await this.#writing;
  }

  /** Writes all pending times; later uses are ignored. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.flush();
  }

  /** Takes constant time for chains of any length, because a lookup waits for it. */
  #note(use: ObjectUse): void {
    const last = use.keys.at(-1);
    if (last === undefined || this.#isClosed) return;
    const now = this.#options.clock.now();
    if (now < this.#pausedUntil || this.#waitingKeys > MAX_WAITING) return;
    const turnover = this.#options.turnover();
    const { storedBytes } = turnover;
    const objects = use.keys.length;
    const isDue = this.#waiting.length > 0 &&
      hasMoved(turnover, this.#waitingSince, DELAY_SHARE);
    if (isDue) this.#start();
    const noted = this.#fresh.get(last.id);
    const isFresh = noted !== undefined && objects <= noted.objects &&
      now - noted.at < FRESH_MS && !hasMoved(turnover, noted.storedBytes, FRESH_SHARE);
    if (isFresh) return;
    remember(this.#fresh, last.id, { at: now, storedBytes, objects });
    if (this.#waiting.length === 0) this.#waitingSince = storedBytes;
    this.#waiting.push(use);
    this.#waitingKeys += objects;
    this.#cancelTimer ??= this.#options.clock.schedule(() => this.#start(), DELAY_MS, {
      background: true,
    });
  }

  #start(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#writing ??= this.#write().finally(() => this.#writing = undefined);
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const uses = this.#waiting;
      this.#waiting = [];
      this.#waitingKeys = 0;
      const notes = timesOf(uses).values();
      const run = async (): Promise<void> => {
        for (const { key, time } of notes) {
          if (this.#options.clock.now() < this.#pausedUntil) return;
          await this.#set(key, time);
        }
      };
      await Promise.all(Array.from({ length: CONCURRENCY }, run));
    }
  }

  async #set(key: ObjectKey, time: number): Promise<void> {
    const { files, paths, clock } = this.#options;
    try {
      await files.touch(paths.pathOf(key), new Date(time));
      this.#refused = 0;
    } catch (error) {
      // A removed object has no time, and files of other users keep theirs; on a read-only file
      // system, no time can be set until it is writable again.
      if (isReadOnly(error)) this.#refused++;
      if (errnoOf(error) !== "EROFS" && this.#refused < MAX_REFUSED) return;
      this.#pausedUntil = clock.now() + READ_ONLY_MS;
      this.#refused = 0;
    }
  }
}

/** Whether at least a share of the capacity was stored since `storedBytes`. */
function hasMoved(now: Turnover, storedBytes: number, share: number): boolean {
  // The total restarts at 0 in a new ledger.
  return Math.abs(now.storedBytes - storedBytes) >= share * now.capacityBytes;
}

/** The latest time of each object. */
function timesOf(uses: readonly ObjectUse[]): Map<string, { key: ObjectKey; time: number }> {
  const times = new Map<string, { key: ObjectKey; time: number }>();
  for (const { keys, places, time: usedAt } of uses) {
    for (const [i, key] of keys.entries()) {
      const time = usedAt - STEP_MS * (places?.[i] ?? i);
      const noted = times.get(key.id);
      if (noted === undefined || noted.time < time) times.set(key.id, { key, time });
    }
  }
  return times;
}

/** Sets an entry; drops the oldest one above the limit. */
function remember<Value>(entries: Map<string, Value>, id: string, value: Value): void {
  entries.delete(id);
  entries.set(id, value);
  const [oldest] = entries.size > MAX_REMEMBERED ? entries.keys() : [];
  if (oldest !== undefined) entries.delete(oldest);
}
