import type { Bitmap, Clock, ObjectKey } from "../../src/l2/adapter.ts";
import { errnoOf, isReadOnly } from "../_shared/errno.ts";
import type { FileSystem } from "./file_system.ts";
import type { ObjectPaths } from "./object_paths.ts";

/** Objects used again within this time need not be noted again, in milliseconds, … */
const FRESH_MS = 60_000;
/** … unless this share of the capacity was stored meanwhile: then others are younger by now. */
const FRESH_SHARE = 1 / 16;
/** Notes are written this many milliseconds later, so that lookups come first, … */
const DELAY_MS = 1_000;
/** … or as soon as this share of the capacity was stored. */
const DELAY_SHARE = 1 / 64;
/** Chains remembered as fresh, and objects whose place in a chain is known. */
const MOST_REMEMBERED = 16_384;
/** Notes that may wait: beyond, uses are forgotten so that memory stays bounded. */
const MOST_WAITING = 65_536;
/** Difference between two neighbours of a chain, in milliseconds: the tail is the older one. */
const STEP_MS = 1;
/** Refusals in a row that are taken for a read-only file system. */
const MOST_REFUSED = 1_000;
/**
 * Time for which nothing is noted on a read-only file system, in milliseconds. What was refused then
 * counts as fresh no longer, and is noted when it is used again.
 */
const READ_ONLY_MS = FRESH_MS;
const CONCURRENCY = 2;

/** Objects of a chain that were used together. */
interface Use {
  readonly keys: readonly ObjectKey[];
  /** Where they stand; left out, they are the first of the chain. */
  readonly places?: readonly number[];
  /** When that was, in milliseconds since 1970. */
  readonly time: number;
}

/** When a chain was noted, and how much of it. */
interface Noted {
  readonly at: number;
  readonly storedBytes: number;
  readonly objects: number;
}

/** How fast a directory turns over. */
export interface Turnover {
  /** Bytes that all processes have ever stored; only differences mean anything. */
  readonly storedBytes: number;
  /** Bytes after which everything in the directory is another object. */
  readonly capacityBytes: number;
}

/** How {@linkcode UseTimes} are set up. */
export interface UseTimesOptions {
  /** The file operations. */
  readonly files: FileSystem;
  /** Where the objects lie. */
  readonly paths: ObjectPaths;
  /** How fast the directory turns over. */
  readonly turnover: () => Turnover;
  /** Source of time. */
  readonly clock: Clock;
}

/**
 * Notes when objects were used, in the modification times of their files, where every process that
 * shares the directory sees them. Within a chain, an object further back counts as used earlier, so
 * that tails are evicted first. Notes are written in the background.
 */
export class UseTimes {
  readonly #options: UseTimesOptions;
  /** When the chains that end in these objects were noted. */
  readonly #fresh = new Map<string, Noted>();
  /** Places of objects that a chain was found to lack: they are likely to be stored soon. */
  readonly #places = new Map<string, number>();
  #waiting: Use[] = [];
  #waitingKeys = 0;
  /** Bytes ever stored when the oldest of the waiting notes came. */
  #waitingSince = 0;
  #cancelTimer: (() => void) | undefined;
  #writing: Promise<void> | undefined;
  /** Nothing is noted before this time: the file system was found to be read-only. */
  #pausedUntil = -Infinity;
  /** Objects in a row whose times could not be set. */
  #refused = 0;
  #isClosed = false;

  /** Notes uses of the objects in `paths`. */
  constructor(options: UseTimesOptions) {
    this.#options = options;
  }

  /** Notes that those of a chain that were found are used now, and that the others are missing. */
  lookedUp(keys: readonly ObjectKey[], found: Bitmap): void {
    const front = found.countLeadingOnes();
    const places: number[] = [];
    for (let place = front; place < keys.length; place++) {
      if (found.test(place)) places.push(place);
      else remember(this.#places, (keys[place] as ObjectKey).id, place);
    }
    if (places.length === 0) return this.used(keys.slice(0, front));
    places.unshift(...Array(front).keys());
    this.#note({ keys: found.gather(keys), places, time: Date.now() });
  }

  /** Notes that objects are used now, the first of them as the front of a chain. */
  used(keys: readonly ObjectKey[]): void {
    this.#note({ keys, time: Date.now() });
  }

  /** Whether a chain was found to lack an object a while ago. */
  isKnownToLack({ id }: ObjectKey): boolean {
    return this.#places.has(id);
  }

  /** Notes that objects were written now; the time of writing does for those of no known chain. */
  stored(keys: readonly ObjectKey[]): void {
    const ofChains = keys.filter((key) => this.isKnownToLack(key));
    if (ofChains.length === 0) return;
    const places = ofChains.map(({ id }) => this.#places.get(id) as number);
    for (const { id } of ofChains) this.#places.delete(id);
    this.#note({ keys: ofChains, places, time: Date.now() });
  }

  /** Writes down at once what is still to be noted. */
  async flush(): Promise<void> {
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    if (this.#waiting.length > 0) this.#start();
    while (this.#writing !== undefined) await this.#writing;
  }

  /** Writes down what is still to be noted; uses after that are not. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.flush();
  }

  /** Costs as much for a long chain as for a short one: a lookup waits for it. */
  #note(use: Use): void {
    const last = use.keys.at(-1);
    if (last === undefined || this.#isClosed) return;
    const now = this.#options.clock.now();
    if (now < this.#pausedUntil || this.#waitingKeys > MOST_WAITING) return;
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
      // An object that left meanwhile has no time, and one of another user has its own; on a
      // read-only file system none can be set until it is writable again.
      if (isReadOnly(error)) this.#refused++;
      if (errnoOf(error) !== "EROFS" && this.#refused < MOST_REFUSED) return;
      this.#pausedUntil = clock.now() + READ_ONLY_MS;
      this.#refused = 0;
    }
  }
}

/** Whether a share of the capacity was stored since `storedBytes`. */
function hasMoved(now: Turnover, storedBytes: number, share: number): boolean {
  // The count begins again where an account is made anew.
  return Math.abs(now.storedBytes - storedBytes) >= share * now.capacityBytes;
}

/** Each object with the time that it is to have: its last one. */
function timesOf(uses: readonly Use[]): Map<string, { key: ObjectKey; time: number }> {
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

/** Sets an entry, and forgets the oldest one beyond the limit. */
function remember<Value>(entries: Map<string, Value>, id: string, value: Value): void {
  entries.delete(id);
  entries.set(id, value);
  const [oldest] = entries.size > MOST_REMEMBERED ? entries.keys() : [];
  if (oldest !== undefined) entries.delete(oldest);
}
