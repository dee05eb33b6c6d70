import type { Clock } from "../base/clock.ts";
import type { AnswerStatus } from "./guarded_answer.ts";

/** How a call ended. */
export type CallEnd<T> =
  | { readonly status: "answered"; readonly value: T; readonly ms: number }
  | {
    readonly status: "failed";
    readonly cause: unknown;
    readonly ms: number;
    /** Whether it missed its deadline. */
    readonly isTimeout: boolean;
  }
  /** The caller had stopped waiting; `hasWorked` tells whether the call succeeded, if it ended. */
  | { readonly status: "abandoned"; readonly hasWorked: boolean; readonly ms: number };

/** What the caller of a call receives. */
export interface CallOutcome<T> {
  readonly status: AnswerStatus;
  /** The answer, if it arrived in time. */
  readonly value?: T;
  /** Resolves when a call that the caller no longer waits for has ended. */
  readonly settled?: Promise<void>;
}

export interface AdapterCall<T> {
  /** Deadline in milliseconds during which the event loop runs. */
  readonly timeoutMs: number;
  /** Aborts when the caller stops waiting before the deadline. */
  readonly signal?: AbortSignal | undefined;
  /** Performs the call. */
  readonly work: (signal: AbortSignal) => Promise<T>;
  /** Called once with how the call ended, before the caller gets its result. Must not throw. */
  readonly ended: (end: CallEnd<T>) => void;
  /**
   * Called when a call that the caller no longer waits for has ended: with its answer, if it
   * succeeded. Must not throw.
   */
  readonly late?: ((value: T | undefined) => void) | undefined;
}

/**
 * Deadlines are counted in steps of this length, in milliseconds. An engine that computes on this
 * thread blocks the event loop, and the answers of adapters with it, so a step that ends late
 * counts once.
 */
const DEADLINE_STEP_MS = 1_000;

/** Maximum number of hanging calls, each of which keeps its buffers. */
const MAX_HUNG_CALLS = 8;

/**
 * Calls to one adapter. Each returns within its deadline, and calls that miss it are tracked until
 * they end.
 */
export class AdapterCalls {
  readonly #clock: Clock;
  readonly #onQuiet: () => void;
  /** A function for each call in flight that stops waiting for it. */
  readonly #inFlight = new Set<() => void>();
  #hung = 0;

  /** Calls `onQuiet` whenever no call is in flight any more. */
  constructor(clock: Clock, onQuiet: () => void) {
    this.#clock = clock;
    this.#onQuiet = onQuiet;
  }

  /** Calls that have neither ended nor missed their deadline. */
  get inFlight(): number {
    return this.#inFlight.size;
  }

  /** Calls that missed their deadline and have not ended. */
  get hung(): number {
    return this.#hung;
  }

  /** Whether so many calls hang that the adapter is paused until one of them ends. */
  get isStuck(): boolean {
    return this.#hung >= MAX_HUNG_CALLS;
  }

  /** Performs a call; never rejects. */
  run<T>({ timeoutMs, signal, work, ended, late }: AdapterCall<T>): Promise<CallOutcome<T>> {
    const controller = new AbortController();
    const answer = Promise.withResolvers<CallOutcome<T>>();
    const settled = Promise.withResolvers<void>();
    const startedAt = this.#clock.now();
    const elapsedMs = (): number => this.#clock.now() - startedAt;
    let isHung = false;
    const stopWaiting = (status: "timed-out" | "abandoned", reason: DOMException): void => {
      controller.abort(reason);
      answer.resolve({ status, settled: settled.promise });
    };
    const end = (how: CallEnd<T>): void => {
      if (!this.#inFlight.delete(abandon)) return;
      cancelDeadline();
      signal?.removeEventListener("abort", onAbort);
      ended(how);
      if (this.#inFlight.size === 0) this.#onQuiet();
    };
    const abandon = (): void => {
      end({ status: "abandoned", hasWorked: false, ms: elapsedMs() });
      stopWaiting("abandoned", new DOMException("The adapter is closed", "AbortError"));
    };
    // The call stays in flight, because whether the adapter hangs matters even after the caller has
    // left.
    const onAbort = (): void =>
      stopWaiting("abandoned", new DOMException("The caller stopped waiting", "AbortError"));
    const expire = (): void => {
      isHung = true;
      this.#hung++;
      const cause = new DOMException(`No answer within ${timeoutMs} ms`, "TimeoutError");
      end({ status: "failed", cause, ms: timeoutMs, isTimeout: true });
      stopWaiting("timed-out", cause);
    };
    let cancelDeadline = (): void => {};
    const countDown = (leftMs: number): void => {
      const restMs = leftMs - DEADLINE_STEP_MS;
      cancelDeadline = restMs > 0
        ? this.#clock.schedule(() => countDown(restMs), DEADLINE_STEP_MS)
        : this.#clock.schedule(expire, leftMs);
    };
    countDown(timeoutMs);
    const settle = (how: Exclude<CallEnd<T>, { status: "abandoned" }>): void => {
      if (isHung) this.#hung--;
      const value = how.status === "answered" ? { value: how.value } : {};
      // An answer that arrives after the abort says nothing about the adapter.
      if (controller.signal.aborted) {
        end({ status: "abandoned", hasWorked: how.status === "answered", ms: how.ms });
        late?.(value.value);
      } else {
        end(how);
      }
      settled.resolve();
      answer.resolve({ status: how.status, ...value });
    };
    this.#inFlight.add(abandon);
    signal?.addEventListener("abort", onAbort, { once: true });
    (async () => await work(controller.signal))().then(
      (value) => settle({ status: "answered", value, ms: elapsedMs() }),
      (cause) => settle({ status: "failed", cause, ms: elapsedMs(), isTimeout: false }),
    );
    return answer.promise;
  }

  /** Stops waiting for every call. */
  abandonAll(): void {
    for (const abandon of [...this.#inFlight]) abandon();
  }
}
