import type { TieredCache } from "../tiered_cache.ts";
import type { CacheEvent, CacheEventMap, CacheEventType } from "../telemetry/events.ts";
import { toJson } from "./responses.ts";

/** Time in which events that say the same are counted together, in milliseconds. */
const GATHER_MS = 250;
/** Time between two status messages, in milliseconds. */
const STATUS_MS = 1_000;
/** Maximum number of different events within {@linkcode GATHER_MS}; others are only counted. */
const MAX_GATHERED = 64;
/** Time in which an event that repeats is remembered as one, in milliseconds. */
const REPEAT_MS = 60_000;
/** Maximum length of a reason. */
const MAX_REASON = 1_000;
/** Number of past events that a new stream begins with. */
const MAX_PAST = 100;
/** Maximum number of streams. */
export const MAX_STREAMS = 16;
/** Bytes that may wait for a slow reader; beyond that, messages are skipped. */
const MAX_WAITING_BYTES = 256 * 1024;
/** Status messages skipped in a row after which a stream ends: its reader hangs. */
const MAX_SKIPPED = 30;

/** Events that a person does not watch one by one; streams begin without past ones. */
const ROUTINE: ReadonlySet<CacheEventType> = new Set(["stored", "loaded", "deleted"]);

/** Events that the feed has. It leaves out those of single objects and calls. */
const TYPES = [
  "stored",
  "loaded",
  "deleted",
  "damaged",
  "dropped",
  "skipped",
  "deadline",
  "adapteradded",
  "adapterchanged",
  "adapterremoved",
  "devicelost",
  "deviceattached",
] as const satisfies readonly CacheEventType[];

/** An event of the feed, or several that say the same. */
interface FeedEvent {
  /** Increases by 1 with each event of this server. */
  readonly id: number;
  /** When the first of them happened, in milliseconds since 1970. */
  readonly at: number;
  readonly type: string;
  /** Number of them. */
  count: number;
  /** What they add up to. */
  objects: number;
  bytes: number;
  readonly adapter?: { readonly id: number; readonly type: string };
  /** Reason, fault or message. */
  readonly reason?: string;
}

/** One reader of the feed. */
interface FeedStream {
  readonly controller: ReadableStreamDefaultController<Uint8Array>;
  /** Messages that it missed since it last got one. */
  skipped: number;
}

/** What a stream begins with. */
export interface FeedGreeting {
  readonly version: string;
  /** Whether requests with the token can change the cache. */
  readonly canAct: boolean;
}

/**
 * The events of a cache for any number of readers, with its status every second. Costs a listener
 * for each type; timers run only while there is something to tell.
 */
export class EventFeed implements Disposable {
  readonly #cache: TieredCache;
  readonly #greeting: FeedGreeting;
  readonly #startedAt = Date.now();
  readonly #streams = new Set<FeedStream>();
  readonly #encoder = new TextEncoder();
  readonly #ignore: (() => void)[];
  #gathered = new Map<string, FeedEvent>();
  #past: FeedEvent[] = [];
  #nextId = 1;
  #gatherTimer: ReturnType<typeof setTimeout> | undefined;
  #statusTimer: ReturnType<typeof setInterval> | undefined;
  #isClosed = false;

  constructor(cache: TieredCache, greeting: FeedGreeting) {
    this.#cache = cache;
    this.#greeting = greeting;
    this.#ignore = TYPES.map((type) => this.#listen(type));
  }

  /** Number of open streams. */
  get size(): number {
    return this.#streams.size;
  }

  /** Opens a stream of server-sent events; `undefined` if there are too many. */
  open(): ReadableStream<Uint8Array> | undefined {
    if (this.#isClosed || this.#streams.size >= MAX_STREAMS) return undefined;
    let stream: FeedStream;
    return new ReadableStream<Uint8Array>({
      start: (controller) => {
        stream = { controller, skipped: 0 };
        this.#streams.add(stream);
        this.#send(
          stream,
          this.#message("hello", {
            ...this.#greeting,
            startedAt: this.#startedAt,
          }),
        );
        for (const event of this.#past) this.#send(stream, this.#message("cache", event));
        this.#send(stream, this.#statusMessage());
        this.#statusTimer ??= setInterval(() => this.#tellStatus(), STATUS_MS);
      },
      cancel: () => this.#end(stream),
    }, new ByteLengthQueuingStrategy({ highWaterMark: MAX_WAITING_BYTES }));
  }

  /** Adds an event that does not come from the cache. */
  note(type: string, reason: string): void {
    this.#add(type, { reason }, 0, 0);
  }

  /** Ends all streams and stops listening. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    for (const ignore of this.#ignore) ignore();
    clearTimeout(this.#gatherTimer);
    for (const stream of this.#streams) {
      stream.controller.close();
      this.#end(stream);
    }
  }

  #listen<Type extends typeof TYPES[number]>(type: Type): () => void {
    const { events } = this.#cache;
    const listener = ({ detail }: CacheEvent<Type>): void => {
      const { objects = 1, bytes = 0, ...rest } = summaryOf(detail);
      this.#add(type, rest, objects, bytes);
    };
    events.addEventListener(type, listener);
    return () => events.removeEventListener(type, listener);
  }

  #add(
    type: string,
    said: Pick<FeedEvent, "adapter" | "reason">,
    objects: number,
    bytes: number,
  ): void {
    const name = `${type} ${said.adapter?.id} ${said.reason}`;
    let event = this.#gathered.get(name);
    if (event === undefined) {
      const isFull = this.#gathered.size >= MAX_GATHERED;
      const key = isFull ? "" : name;
      const kept = isFull ? { type: "others" } : { type, ...said };
      event = this.#gathered.get(key) ??
        { id: this.#nextId++, at: Date.now(), count: 0, objects: 0, bytes: 0, ...kept };
      this.#gathered.set(key, event);
    }
    event.count++;
    event.objects += objects;
    event.bytes += bytes;
    this.#gatherTimer ??= setTimeout(() => this.#tellGathered(), GATHER_MS);
  }

  #tellGathered(): void {
    this.#gatherTimer = undefined;
    const events = [...this.#gathered.values()];
    this.#gathered = new Map();
    const notable = events.filter(({ type }) => !ROUTINE.has(type as CacheEventType));
    for (const event of notable) this.#remember(event);
    if (this.#streams.size === 0) return;
    for (const event of events) this.#broadcast(this.#message("cache", event));
  }

  /** Keeps an event for later streams; one that repeats soon is kept once. */
  #remember(event: FeedEvent): void {
    const { type, adapter, reason, at } = event;
    const same = this.#past.findLast((past) =>
      past.type === type && past.reason === reason && past.adapter?.id === adapter?.id &&
      at - past.at < REPEAT_MS
    );
    if (same === undefined || type === "action") {
      this.#past = [...this.#past, { ...event }].slice(-MAX_PAST);
      return;
    }
    same.count += event.count;
    same.objects += event.objects;
    same.bytes += event.bytes;
  }

  #tellStatus(): void {
    this.#broadcast(this.#statusMessage());
    for (const stream of this.#streams) {
      if (stream.skipped < MAX_SKIPPED) continue;
      stream.controller.error(new Error("The reader is too slow"));
      this.#end(stream);
    }
  }

  #statusMessage(): Uint8Array {
    return this.#message("status", { at: Date.now(), status: this.#cache.reportStatus() });
  }

  #message(event: string, data: unknown): Uint8Array {
    return this.#encoder.encode(`event: ${event}\ndata: ${toJson(data)}\n\n`);
  }

  #broadcast(message: Uint8Array): void {
    for (const stream of this.#streams) this.#send(stream, message);
  }

  /** Sends a message, or skips it if too much waits for the reader. */
  #send(stream: FeedStream, message: Uint8Array): void {
    const { controller } = stream;
    if ((controller.desiredSize ?? 0) <= 0) {
      stream.skipped++;
      return;
    }
    if (stream.skipped > 0) {
      const { skipped } = stream;
      stream.skipped = 0;
      controller.enqueue(this.#message("skipped", { messages: skipped }));
    }
    controller.enqueue(message);
  }

  #end(stream: FeedStream): void {
    this.#streams.delete(stream);
    if (this.#streams.size > 0) return;
    clearInterval(this.#statusTimer);
    this.#statusTimer = undefined;
  }
}

/** What the feed shows of the details of an event. */
function summaryOf(
  detail: CacheEventMap[typeof TYPES[number]],
): Partial<Pick<FeedEvent, "objects" | "bytes" | "adapter" | "reason">> {
  // Details of these types are objects of plain fields.
  const fields = detail as Partial<{
    adapter: FeedEvent["adapter"];
    id: number;
    type: string;
    objects: number;
    bytes: number;
    reason: string;
    fault: string;
    message: string;
    description: string;
  }>;
  const { id, type, objects, bytes } = fields;
  const adapter = fields.adapter ??
    (id === undefined || type === undefined ? undefined : { id, type });
  const reason = (fields.reason ?? fields.fault ?? fields.message ?? fields.description)
    ?.slice(0, MAX_REASON);
  return {
    ...objects !== undefined && { objects },
    ...bytes !== undefined && { bytes },
    ...adapter !== undefined && { adapter: { id: adapter.id, type: adapter.type } },
    ...reason !== undefined && { reason },
  };
}
