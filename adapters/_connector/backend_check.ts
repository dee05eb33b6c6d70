import { untilAborted } from "../../src/base/abort.ts";
import { systemRandom } from "../../src/adapter/contract.ts";
import { abortAfter, type Clock } from "../../src/base/clock.ts";
import { type Backend, bytesIn } from "./backend.ts";
import { type ConnectorObjectNames, newPartId } from "./object_names.ts";

/** Max time to wait for an answer, in milliseconds. A silent connector may answer later. */
const CHECK_MS = 5_000;
const CHECK_BYTES = 256;
/** A fixed id for connectors that cannot delete: each check overwrites the same value. */
const ONLY_ID = "0".repeat(32);

/** Options of a {@linkcode BackendCheck}. */
export interface BackendCheckOptions {
  readonly backend: Backend;
  readonly names: ConnectorObjectNames;
  readonly clock: Clock;
}

/** Result of a check. */
export type BackendState =
  /** Not known yet: the connector does not answer or does not store values now. */
  | { readonly state: "unknown"; readonly cause?: unknown }
  | { readonly state: "sound" }
  /** The connector does not return what was stored. */
  | { readonly state: "unsound"; readonly expected: string; readonly received: string };

/**
 * Checks with a round trip that a connector keeps binary values under the given keys. One that
 * stores text, or lists other keys, would seem to work but find nothing.
 */
export class BackendCheck {
  readonly #options: BackendCheckOptions;
  #result: BackendState = { state: "unknown" };
  #running: Promise<BackendState> | undefined;
  #reportsSizes = false;

  constructor(options: BackendCheckOptions) {
    this.#options = options;
  }

  /** Whether `sizeOf` of the connector returns the size of a value. */
  get reportsSizes(): boolean {
    return this.#reportsSizes;
  }

  /** The result of the check; repeats the check while it is unknown. */
  async result(): Promise<BackendState> {
    if (this.#result.state !== "unknown") return this.#result;
    this.#running ??= this.#run().finally(() => this.#running = undefined);
    return this.#result = await this.#running;
  }

  async #run(): Promise<BackendState> {
    const { backend, clock, names } = this.#options;
    using late = abortAfter(clock, CHECK_MS, new Error("The connector does not answer"));
    const { signal } = late;
    const ask = <Value>(answer: () => Value | Promise<Value>): Promise<Value> =>
      untilAborted(signal, (async () => await answer())());
    const name = names.ofPart(backend.delete === undefined ? ONLY_ID : newPartId(), 0);
    try {
      return await this.#roundTrip(name, ask, signal);
    } catch (cause) {
      return { state: "unknown", cause };
    } finally {
      await ask(() => backend.delete?.(name, signal)).catch(() => {});
    }
  }

  async #roundTrip(
    name: string,
    ask: <Value>(answer: () => Value | Promise<Value>) => Promise<Value>,
    signal: AbortSignal,
  ): Promise<BackendState> {
    const { backend } = this.#options;
    // All byte values, from a random one on, so that a value left by an earlier check does not
    // match.
    const start = systemRandom.bytes(1)[0] ?? 0;
    const bytes = Uint8Array.from({ length: CHECK_BYTES }, (_, i) => start + i);
    if (await ask(() => backend.set(name, bytes.slice(), signal)) === false) {
      return { state: "unknown", cause: new Error("The connector did not store a value") };
    }
    const answer = await ask(() => backend.get(name, signal));
    const read = bytesIn(answer);
    if (read?.length !== CHECK_BYTES || !bytes.every((byte, i) => byte === read[i])) {
      const expected = "a store that returns the bytes it was given: one for text or JSON must " +
        'encode them in get() and set(); a Keyv needs kind: "keyv"';
      return { state: "unsound", expected, received: describe(answer) };
    }
    if (!await ask(() => backend.has(name, signal))) {
      const expected = "exists() or has() that finds a key that was set";
      return { state: "unsound", expected, received: "false" };
    }
    if (backend.sizeOf !== undefined) {
      const size = await ask(() => backend.sizeOf?.(name, signal));
      this.#reportsSizes = size === CHECK_BYTES;
    }
    if (backend.list !== undefined && !await ask(() => this.#lists(name, signal))) {
      const expected =
        "a list of the keys as they were set: unlisted objects are neither counted " +
        "nor forgotten";
      return { state: "unsound", expected, received: "a list without a key that was set" };
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
