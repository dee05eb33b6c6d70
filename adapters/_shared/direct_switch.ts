import { isDirectRefused } from "./direct_access.ts";
import { messageOf } from "./errno.ts";

/** Operations with direct I/O. */
interface Closable {
  close(signal?: AbortSignal): Promise<void>;
}

/**
 * How objects are read and written: through the page cache as configured, past it, or through it
 * because the file system refused direct I/O.
 */
type DirectState<Direct> =
  | { readonly phase: "buffered" }
  | { readonly phase: "direct"; readonly io: Direct }
  | { readonly phase: "refused"; readonly io: Direct; readonly reason: string };

/** Chooses between direct I/O and the page cache. Once refused, direct I/O is not used again. */
export class DirectSwitch<Direct extends Closable> {
  readonly #onRefused: (error: Error) => void;
  #state: DirectState<Direct> = { phase: "buffered" };

  /**
   * @param onRefused Called once, if direct I/O is refused.
   */
  constructor(onRefused: (error: Error) => void) {
    this.#onRefused = onRefused;
  }

  get state(): DirectState<Direct> {
    return this.#state;
  }

  /** Whether direct I/O is used. */
  get isInUse(): boolean {
    return this.#state.phase === "direct";
  }

  /** Whether an operation may have met direct I/O, even if that has been refused meanwhile. */
  get wasTried(): boolean {
    return this.#state.phase !== "buffered";
  }

  /**
   * Uses direct I/O from now on, unless it does not work.
   *
   * @param probe Tries it; resolves to why it does not work, or `undefined`.
   */
  async start(io: Direct, probe: (io: Direct) => Promise<string | undefined>): Promise<void> {
    this.#state = { phase: "direct", io };
    const refusal = await probe(io).catch(messageOf);
    if (refusal !== undefined) this.refuse(refusal);
  }

  /** Uses the page cache from now on. Concurrent operations may be refused too. */
  refuse(error: unknown): void {
    if (this.#state.phase !== "direct") return;
    const reason = messageOf(error);
    this.#state = { phase: "refused", io: this.#state.io, reason };
    this.#onRefused(new Error(`O_DIRECT is refused, so the page cache is used: ${reason}`));
  }

  /** Runs `work` with direct I/O; resolves to `undefined` if that is not in use, or refused now. */
  async run<Value>(work: (io: Direct) => Promise<Value>): Promise<Value | undefined> {
    if (this.#state.phase !== "direct") return undefined;
    try {
      return await work(this.#state.io);
    } catch (error) {
      if (!isDirectRefused(error)) throw error;
      this.refuse(error);
      return undefined;
    }
  }

  /** Closes what was opened for direct I/O. */
  async close(signal?: AbortSignal): Promise<void> {
    if (this.#state.phase !== "buffered") await this.#state.io.close(signal);
  }
}
