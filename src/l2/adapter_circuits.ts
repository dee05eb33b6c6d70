import { getLogger } from "@logtape/logtape";
import type { Clock } from "../base/clock.ts";
import type { CallEnd } from "./adapter_calls.ts";
import type { CircuitName, CircuitStatus } from "./adapter_status.ts";
import { type BreakerOptions, CircuitBreaker } from "./circuit_breaker.ts";

/** Consecutive failures of one operation after which an adapter counts as unhealthy. */
const UNHEALTHY_FAILURES = 3;
const CIRCUITS: readonly CircuitName[] = ["store", "lookup", "load", "delete"];

const logger = getLogger(["kvtier", "adapter"]);

/** Options of {@linkcode AdapterCircuits}. */
export interface AdapterCircuitsOptions {
  readonly id: number;
  readonly type: string;
  readonly clock: Clock;
  readonly breaker?: Partial<BreakerOptions> | undefined;
  /** Called when a circuit opens or closes. */
  readonly onChange: () => void;
}

/** The circuit breakers of one adapter, one for each operation, and the last errors of each. */
export class AdapterCircuits {
  readonly #options: AdapterCircuitsOptions;
  readonly #circuits: Readonly<Record<CircuitName, CircuitBreaker>>;
  readonly #lastErrors = new Map<string, string>();
  readonly #open = new Set<CircuitName>();

  constructor(options: AdapterCircuitsOptions) {
    this.#options = options;
    const { clock, breaker } = options;
    this.#circuits = eachCircuit((name) =>
      new CircuitBreaker({ ...breaker, clock, onChange: (state) => this.#onChange(name, state) })
    );
  }

  of(name: CircuitName): CircuitBreaker {
    return this.#circuits[name];
  }

  /** Status of each circuit. */
  get status(): Readonly<Record<CircuitName, CircuitStatus>> {
    return eachCircuit((name) => {
      const { state, openCount, retryInMs } = this.#circuits[name];
      return { state, openCount, retryInMs };
    });
  }

  /** Circuits that are open or about to open, as sentences. */
  get problems(): string[] {
    return CIRCUITS.flatMap((name) => {
      const { state, retryInMs, failuresInARow } = this.#circuits[name];
      const reason = this.#lastErrors.get(name) ?? "nothing was stored";
      if (state === "open") {
        return `${name} is paused for another ${Math.ceil(retryInMs / 1000)} s: ${reason}`;
      }
      if (state === "half-open") return `${name} is retried with the next call: ${reason}`;
      if (failuresInARow < UNHEALTHY_FAILURES) return [];
      return `${name} failed ${failuresInARow} times in a row: ${reason}`;
    });
  }

  /** Records the message of an error; an operation without a circuit is ignored. */
  noteError(operation: string, message: string): void {
    if (Object.hasOwn(this.#circuits, operation)) this.#lastErrors.set(operation, message);
  }

  /**
   * Updates a circuit with the outcome of a call.
   *
   * @param hasWorked Whether an answer was of any use.
   */
  judge(name: CircuitName, pass: number, end: CallEnd<unknown>, hasWorked: boolean): void {
    const circuit = this.#circuits[name];
    if (end.status === "failed") circuit.failure(pass, { trip: end.isTimeout });
    else if (end.status === "abandoned" && !end.hasWorked) circuit.release(pass);
    else if (hasWorked) circuit.success(pass);
    else circuit.failure(pass);
  }

  #onChange(operation: CircuitName, state: "open" | "closed"): void {
    const { id, type, onChange } = this.#options;
    if (state === "closed") {
      this.#open.delete(operation);
      logger.info("{type}: {operation} works again", { id, type, operation });
    } else if (!this.#open.has(operation)) {
      this.#open.add(operation);
      const { retryInMs } = this.#circuits[operation];
      logger.warn("{type}: {operation} failed and is paused for {seconds} s: {error}", {
        id,
        type,
        operation,
        retryInMs,
        seconds: (retryInMs / 1000).toFixed(1),
        error: this.#lastErrors.get(operation),
      });
    }
    onChange();
  }
}

function eachCircuit<T>(make: (name: CircuitName) => T): Record<CircuitName, T> {
  return {
    store: make("store"),
    lookup: make("lookup"),
    load: make("load"),
    delete: make("delete"),
  };
}
