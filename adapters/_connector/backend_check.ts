import { type Clock, systemRandom } from "../../src/l2/adapter.ts";
import { untilAborted } from "../_shared/until_aborted.ts";
import { type Backend, bytesIn } from "./backend.ts";
import { newPartId, type ObjectNames } from "./object_names.ts";

/** An answer is waited for so long, in milliseconds; a connector that says nothing may come. */
const CHECK_MS = 5_000;
const CHECK_BYTES = 256;
/** The same name each time, where nothing can be removed. */
const ONLY_ID = "0".repeat(32);

/** How a {@linkcode BackendCheck} is set up. */
export interface BackendCheckOptions {
  /** The connector. */
  readonly backend: Backend;
  /** How values are called. */
  readonly names: ObjectNames;
  /** Source of time. */
  readonly clock: Clock;
}

/** What a connector turned out to be. */
export type BackendState =
  /** Nothing is known yet: it does not answer, or takes nothing now. */
  | { readonly state: "unknown"; readonly cause?: unknown }
  | { readonly state: "sound" }
  /** It does not give back what it was given. */
  | { readonly state: "unsound"; readonly expected: string; readonly received: string };

/**
 * Finds out with a round trip whether a connector keeps bytes, under the names that it is given: one
 * that makes text of them, or lists other names, would look healthy and find nothing.
 */
export class BackendCheck {
  readonly #options: BackendCheckOptions;
  #result: BackendState = { state: "unknown" };
  #running: Promise<BackendState> | undefined;
  #tellsSizes = false;

  /** Asks nothing yet. */
  constructor(options: BackendCheckOptions) {
    this.#options = options;
  }

  /** Whether `sizeOf` of the connector tells the bytes of a value. */
  get tellsSizes(): boolean {
    return this.#tellsSizes;
  }

  /** What the connector is; asked for again as long as that is unknown. */
  async result(): Promise<BackendState> {
    if (this.#result.state !== "unknown") return this.#result;
    this.#running ??= this.#run().finally(() => this.#running = undefined);
    return this.#result = await this.#running;
  }

  async #run(): Promise<BackendState> {
    const { backend, clock, names } = this.#options;
    const late = new AbortController();
    const cancel = clock.schedule(() => late.abort(new Error("It does not answer")), CHECK_MS);
    const { signal } = late;
    const ask = <Value>(answer: () => Value | Promise<Value>): Promise<Value> =>
      untilAborted(signal, (async () => await answer())(), () => {
        throw signal.reason;
      });
    const name = names.ofPart(backend.delete === undefined ? ONLY_ID : newPartId(), 0);
    try {
      return await this.#roundTrip(name, ask, signal);
    } catch (cause) {
      return { state: "unknown", cause };
    } finally {
      await ask(() => backend.delete?.(name, signal)).catch(() => {});
      cancel();
    }
  }

  async #roundTrip(
    name: string,
    ask: <Value>(answer: () => Value | Promise<Value>) => Promise<Value>,
    signal: AbortSignal,
  ): Promise<BackendState> {
    const { backend } = this.#options;
    // All bytes, from a random one on: what is there from before is not taken for these.
    const start = systemRandom.bytes(1)[0] ?? 0;
    const bytes = Uint8Array.from({ length: CHECK_BYTES }, (_, i) => start + i);
    if (await ask(() => backend.set(name, bytes.slice(), signal)) === false) {
      return { state: "unknown", cause: new Error("It did not take a value") };
    }
    const answer = await ask(() => backend.get(name, signal));
    const read = bytesIn(answer);
    if (read?.length !== CHECK_BYTES || !bytes.every((byte, i) => byte === read[i])) {
      const expected = "a store that gives back the bytes that it is given: one that keeps text " +
        'or JSON has to encode them in get() and set(); a Keyv needs kind: "keyv"';
      return { state: "unsound", expected, received: describe(answer) };
    }
    if (!await ask(() => backend.has(name, signal))) {
      const expected = "exists() or has() that finds what was set";
      return { state: "unsound", expected, received: "false" };
    }
    if (backend.sizeOf !== undefined) {
      const size = await ask(() => backend.sizeOf?.(name, signal));
      this.#tellsSizes = size === CHECK_BYTES;
    }
    if (backend.list !== undefined && !await ask(() => this.#lists(name, signal))) {
      const expected = "a list of the names as they were set: what is not listed is neither " +
        "counted nor forgotten";
      return { state: "unsound", expected, received: "a list without a name that was set" };
    }
    return { state: "sound" };
  }

  async #lists(name: string, signal: AbortSignal): Promise<boolean> {
    for await (const listed of this.#options.backend.list?.(name, signal) ?? []) {
      if (signal.aborted) break;
      if (listed === name) return true;
    }
    return false;
  }
}

function describe(answer: unknown): string {
  if (answer === null || answer === undefined) return "nothing";
  return bytesIn(answer)?.length ? "other bytes" : typeof answer;
}
