import { getLogger } from "@logtape/logtape";
import type { Clock } from "../base/clock.ts";
import { LogLimit } from "../base/log_limit.ts";
import { AdapterError } from "../adapter/errors.ts";
import { type AdapterCall, AdapterCalls, type CallEnd, type CallOutcome } from "./adapter_calls.ts";
import { AdapterCircuits } from "./adapter_circuits.ts";
import { AdapterCounters } from "./adapter_counters.ts";
import { AdapterLife } from "./adapter_life.ts";
import type {
  AdapterOperation,
  AdapterStatus,
  AdapterTimeouts,
  CircuitName,
} from "./adapter_status.ts";
import type { BreakerOptions } from "./circuit_breaker.ts";
import type { EndedCall } from "./guard_listener.ts";

/** Options of {@linkcode GuardedCalls}. */
export interface GuardedCallsOptions {
  /** Id of the adapter in the cache; never changed or reused. */
  readonly id: number;
  readonly type: string;
  /** Clock for deadlines and cool-downs. */
  readonly clock: Clock;
  /** Deadlines of adapter calls. */
  readonly timeouts: AdapterTimeouts;
  /** When a failing operation is paused, and for how long. */
  readonly breaker?: Partial<BreakerOptions> | undefined;
}

/** A call on the path that all calls take. */
export interface GuardedCall<T> extends Omit<AdapterCall<T>, "timeoutMs" | "ended"> {
  readonly operation: AdapterOperation;
  /** Deadline in milliseconds, if it is not that of the operation. */
  readonly timeoutMs?: number;
  /** Whether the call is made even if the adapter is paused or closed, because it ends something. */
  readonly isForced?: boolean;
  /** Whether an answer is of any use; one that is not counts as a failure for the circuit. */
  readonly hasWorked?: (value: T) => boolean;
  /** Measures how the call ended. */
  readonly measure?: (end: CallEnd<T>) => void;
}

/** Callbacks of {@linkcode GuardedCalls}. They must not throw. */
export interface CallCallbacks {
  /** The life-cycle state or a circuit has changed. */
  readonly onChange: () => void;
  /** A call has ended. */
  readonly onCalled: (call: EndedCall) => void;
}

const SKIPPED: CallOutcome<never> = { status: "skipped" };

const logger = getLogger(["kvtier", "adapter"]);

/**
 * The path that every call to an adapter takes: it is skipped or gets a pass, runs within its
 * deadline, and is judged and counted when it has ended.
 */
export class GuardedCalls {
  readonly counters = new AdapterCounters();
  readonly life: AdapterLife;
  readonly circuits: AdapterCircuits;
  /** Message of the last failure. */
  lastError: string | undefined;
  readonly #options: GuardedCallsOptions;
  readonly #calls: AdapterCalls;
  readonly #log: LogLimit;
  readonly #onCalled: (call: EndedCall) => void;

  constructor(options: GuardedCallsOptions, { onChange, onCalled }: CallCallbacks) {
    this.#options = options;
    this.#log = new LogLimit(options.clock);
    this.#onCalled = onCalled;
    this.#calls = new AdapterCalls(options.clock, () => this.life.wakeIfIdle());
    this.life = new AdapterLife(() => this.#calls.inFlight > 0, onChange);
    this.circuits = new AdapterCircuits({ ...options, onChange });
  }

  /** Calls in flight that have not missed their deadline. */
  get inFlight(): number {
    return this.#calls.inFlight;
  }

  /** Calls that missed their deadline and have not ended. */
  get hung(): number {
    return this.#calls.hung;
  }

  /** Whether every call is skipped: the adapter is closed, or too many calls hang. */
  get isPaused(): boolean {
    return this.life.state === "closed" || this.#calls.isStuck;
  }

  /** Reasons why calls are or will soon be skipped, as sentences. */
  get problems(): string[] {
    const { hung, isStuck } = this.#calls;
    const stuck = `${hung} calls hang: the adapter is paused until one of them ends`;
    return [...this.circuits.problems, ...isStuck ? [stuck] : []];
  }

  /** What the status of the adapter says about its calls. */
  get status() {
    return {
      state: this.life.state,
      circuits: this.circuits.status,
      ...this.counters,
      damagedObjects: { ...this.counters.damagedObjects },
      lockedKeys: this.life.locks,
      callsInFlight: this.inFlight,
      hungCalls: this.hung,
      lastError: this.lastError,
    } satisfies Partial<AdapterStatus>;
  }

  /** Makes a call, unless it is to be skipped; never rejects. */
  run<T>(call: GuardedCall<T>): Promise<CallOutcome<T>> {
    const { operation, hasWorked, measure, timeoutMs = this.#deadlineOf(operation) } = call;
    if (!call.isForced && !this.canEnter(operation)) {
      this.counters.skippedCalls++;
      return Promise.resolve(SKIPPED);
    }
    const circuit = hasCircuit(operation) ? operation : undefined;
    const pass = circuit && this.circuits.of(circuit).tryEnter();
    const ended = (end: CallEnd<T>): void => {
      measure?.(end);
      const isTimeout = end.status === "failed" && end.isTimeout;
      const outcome = isTimeout ? "timed-out" : end.status;
      this.#onCalled({ operation, outcome, durationMs: end.ms });
      if (end.status === "failed") this.fail(operation, end.cause, end.isTimeout);
      if (circuit === undefined || pass === undefined) return;
      const isUseful = end.status !== "answered" || hasWorked?.(end.value) !== false;
      this.circuits.judge(circuit, pass, end, isUseful);
    };
    return this.#calls.run({ ...call, timeoutMs, ended });
  }

  /** Stops waiting for every call. */
  abandonAll(): void {
    this.#calls.abandonAll();
  }

  /** Counts and records a failure. */
  fail(operation: AdapterOperation, cause: unknown, isTimeout = false): void {
    this.counters.addFailure(isTimeout);
    const error = cause instanceof AdapterError
      ? cause
      : new AdapterError({ adapter: this.#options.type, operation, cause });
    this.reportError(error);
    this.circuits.noteError(operation, error.message);
  }

  /** Records a failure that the adapter reported without failing a call. */
  reportError(error: AdapterError): void {
    this.lastError = error.message;
    this.circuits.noteError(error.operation, error.message);
    const { type } = this.#options;
    const isLogged = this.#log.allows((lines) =>
      logger.warn("{type}: {lines} failures were not logged", { type, lines })
    );
    if (isLogged) logger.warn("{error}", { error: error.message, key: error.key?.id });
  }

  /** Whether a call would be made now. */
  canEnter(operation: AdapterOperation): boolean {
    const { life, circuits } = this;
    if (this.isPaused) return false;
    if (operation === "store" && !life.takesStores) return false;
    // Skip lookups of objects that could not be loaded anyway.
    const canLoad = life.takesLookups && circuits.of("load").canEnter;
    if (operation === "lookup" && !canLoad) return false;
    return !hasCircuit(operation) || circuits.of(operation).canEnter;
  }

  #deadlineOf(operation: AdapterOperation): number {
    const { timeouts } = this.#options;
    if (operation === "list") return timeouts.deleteMs;
    if (operation === "usage") return timeouts.lookupMs;
    if (operation === "sweep") return timeouts.storeMs;
    return timeouts[`${operation}Ms`];
  }
}

function hasCircuit(operation: AdapterOperation): operation is CircuitName {
  return operation !== "list" && operation !== "usage" && operation !== "sweep" &&
    operation !== "close";
}
