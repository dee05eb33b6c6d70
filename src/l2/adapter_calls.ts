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
  | { readonly status: "abandoned"; readonly hasWorked: boolean };

/** What the caller of a call receives. */
export interface CallOutcome<T> {
  readonly status: Exclude<AnswerStatus, "skipped">;
  /** The answer, if it arrived in time. */
  readonly result: { readonly value: T } | undefined;
  /** Eventual answer of a call that has not ended yet. */
  readonly late?: Promise<{ readonly value: T } | undefined>;
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
}

/**
 * Deadlines are counted in steps of this length, in milliseconds. An engine that computes on this
 * thread blocks the event loop, and the answers of adapters with it, so a step that ends late
 * counts once.
 */
const DEADLINE_STEP_MS = 1_000;

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

  /** Performs a call; never rejects. */
  run<T>({ timeoutMs, signal, work, ended }: AdapterCall<T>): Promise<CallOutcome<T>> {
    const controller = new AbortController();
    const answer = Promise.withResolvers<CallOutcome<T>>();
    const late = Promise.withResolvers<{ readonly value: T } | undefined>();
    const startedAt = this.#clock.now();
    let isHung = false;
    const stopWaiting = (status: "timed-out" | "abandoned", reason: DOMException): void => {
      controller.abort(reason);
      answer.resolve({ status, result: undefined, late: late.promise });
    };
    const end = (how: CallEnd<T>): void => {
      if (!this.#inFlight.delete(abandon)) return;
      cancelDeadline();
      signal?.removeEventListener("abort", onAbort);
      ended(how);
      if (this.#inFlight.size === 0) this.#onQuiet();
    };
    const abandon = (): void => {
      end({ status: "abandoned", hasWorked: false });
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
    const settle = (result: { readonly value: T } | undefined, how: CallEnd<T>): void => {
      if (isHung) this.#hung--;
      // An answer that arrives after the abort says nothing about the adapter.
      const isLate = controller.signal.aborted;
      end(isLate ? { status: "abandoned", hasWorked: result !== undefined } : how);
      late.resolve(result);
      answer.resolve({ status: result === undefined ? "failed" : "answered", result });
    };
    this.#inFlight.add(abandon);
    signal?.addEventListener("abort", onAbort, { once: true });
    (async () => await work(controller.signal))().then(
      (value) =>
        settle({ value }, { status: "answered", value, ms: this.#clock.now() - startedAt }),
      (cause) => {
        const ms = this.#clock.now() - startedAt;
        settle(undefined, { status: "failed", cause, ms, isTimeout: false });
      },
    );
    return answer.promise;
  }

  /** Stops waiting for every call. */
  abandonAll(): void {
    for (const abandon of [...this.#inFlight]) abandon();
  }
}
