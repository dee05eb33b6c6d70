import type { Clock, ObjectKey } from "../../src/l2/adapter.ts";
import { errnoOf, isReadOnly } from "../_shared/errno.ts";
import type { FileSystem } from "./file_system.ts";
import type { ObjectPaths } from "./object_paths.ts";

/** Objects used again within this time need not be noted again, in milliseconds. */
const FRESH_MS = 60_000;
/** Chains of which is remembered that they are fresh, and objects whose place in one is known. */
const MOST_REMEMBERED = 16_384;
/** Notes that may wait: beyond, some uses are forgotten rather than memory filled. */
const MOST_WAITING = 65_536;
/** Difference between two neighbours of a chain, in milliseconds: the tail is the older one. */
const STEP_MS = 10;
/** After so many refusals in a row nothing is noted any more. */
const MOST_REFUSED = 1_000;
const CONCURRENCY = 2;
/** Who uses objects comes first: notes are written this many milliseconds later. */
const DELAY_MS = 1_000;

/** Objects of a chain that were used together. */
interface Use {
  readonly keys: readonly ObjectKey[];
  /** Where they stand; left out, they are the first of the chain. */
  readonly places?: readonly number[];
  /** When that was, in milliseconds since 1970. */
  readonly time: number;
}

/** How {@linkcode UseTimes} are set up. */
export interface UseTimesOptions {
  /** What does it. */
  readonly files: FileSystem;
  /** Where the objects lie. */
  readonly paths: ObjectPaths;
  /** Source of time. */
  readonly clock: Clock;
}

/**
 * Notes when objects were used, in the modification times of their files: there every process that
 * shares the directory sees them. Within a chain, what stands further back counts as used earlier,
 * so that tails are evicted first. It works behind the back of whoever uses the objects.
 */
export class UseTimes {
  readonly #options: UseTimesOptions;
  /** When the chains that end in these objects were used. */
  readonly #fresh = new Map<string, number>();
  /** Places of objects that a chain was found to lack: they are likely to be stored soon. */
  readonly #places = new Map<string, number>();
  #waiting: Use[] = [];
  #waitingKeys = 0;
  #cancelTimer: (() => void) | undefined;
  #writing: Promise<void> | undefined;
  #isReadOnly = false;
  /** Objects in a row whose times could not be set. */
  #refused = 0;
  #isClosed = false;

  /** Nothing is noted yet. */
  constructor(options: UseTimesOptions) {
    this.#options = options;
  }

  /** Notes that the first `found` of a chain of objects are used now, and that the others lack. */
  lookedUp(keys: readonly ObjectKey[], found: number): void {
    for (let place = found; place < keys.length; place++) {
      remember(this.#places, (keys[place] as ObjectKey).id, place);
    }
    this.#note({ keys: keys.slice(0, found), time: Date.now() });
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

  /** Writes down what is still to be noted; what is used afterwards is not. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancelTimer?.();
    if (this.#waiting.length > 0) this.#start();
    while (this.#writing !== undefined) await this.#writing;
  }

  /** Costs as much for a long chain as for a short one: a lookup waits for it. */
  #note(use: Use): void {
    const last = use.keys.at(-1);
    if (last === undefined || this.#isReadOnly || this.#isClosed) return;
    if (this.#waitingKeys > MOST_WAITING) return;
    const now = this.#options.clock.now();
    // A chain was used up to its end, or not at all.
    if (now - (this.#fresh.get(last.id) ?? -Infinity) < FRESH_MS) return;
    remember(this.#fresh, last.id, now);
    this.#waiting.push(use);
    this.#waitingKeys += use.keys.length;
    this.#cancelTimer ??= this.#options.clock.schedule(() => this.#start(), DELAY_MS);
  }

  #start(): void {
    this.#cancelTimer = undefined;
    this.#writing ??= this.#write().finally(() => this.#writing = undefined);
  }

  async #write(): Promise<void> {
    const { files, paths } = this.#options;
    while (this.#waiting.length > 0) {
      const uses = this.#waiting;
      this.#waiting = [];
      this.#waitingKeys = 0;
      const notes = notesOf(uses);
      const run = async (): Promise<void> => {
        for (const [key, time] of notes) {
          if (this.#isReadOnly) return;
          try {
            await files.touch(paths.pathOf(key), new Date(time));
            this.#refused = 0;
          } catch (error) {
            // An object that left meanwhile has no time, and one of another user has its own; on a
            // read-only disk none has.
            if (isReadOnly(error)) this.#refused++;
            const isDiskReadOnly = errnoOf(error) === "EROFS" || this.#refused >= MOST_REFUSED;
            if (isDiskReadOnly) this.#isReadOnly = true;
          }
        }
      };
      await Promise.all(Array.from({ length: CONCURRENCY }, run));
    }
  }
}

/** Each object with the time that it is to have. */
function* notesOf(uses: readonly Use[]): Generator<readonly [ObjectKey, number], void> {
  for (const { keys, places, time } of uses) {
    for (const [i, key] of keys.entries()) yield [key, time - STEP_MS * (places?.[i] ?? i)];
  }
}

/** Sets an entry, and forgets the oldest one beyond the limit. */
function remember<Value>(entries: Map<string, Value>, id: string, value: Value): void {
  entries.delete(id);
  entries.set(id, value);
  const [oldest] = entries.size > MOST_REMEMBERED ? entries.keys() : [];
  if (oldest !== undefined) entries.delete(oldest);
}
