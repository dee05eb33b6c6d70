import type { Clock } from "../../src/base/clock.ts";
import type { SimRandom } from "./sim_random.ts";

/** Behaviour of an adapter during a phase. */
export type Fault =
  | "healthy"
  /** Calls are slow, some beyond their deadlines. */
  | "slow"
  /** Calls reject. */
  | "rejecting"
  /** Calls hang until the phase ends, some forever. */
  | "hanging"
  /** Some keys fail. */
  | "flaky"
  /** Loaded bytes are damaged. */
  | "corrupting"
  /** Objects vanish, and stores are acknowledged but lost. */
  | "losing"
  /** Lookups give wrong answers. */
  | "lying"
  /** Stores fail completely or partly. */
  | "full"
  /** Answers violate the contract. */
  | "nonsense";

const MINUTE = 60_000;
/** Operations to which a fault may be confined. */
const OPERATIONS = ["store", "lookup", "load", "delete"];

/** Behaviour of an adapter over time: phases of minutes to hours, half of them healthy. */
export class FaultPhases {
  readonly #clock: Clock;
  readonly #random: SimRandom;
  readonly #weights: Readonly<Partial<Record<Fault, number>>>;
  #fault: Fault = "healthy";
  /** Operations to which the fault is confined. */
  #operation: string | undefined;
  #endsAt: number;
  #hasStopped = false;

  /** Chooses each fault as often as `weights` says. */
  constructor(
    clock: Clock,
    random: SimRandom,
    weights: Readonly<Partial<Record<Fault, number>>>,
  ) {
    this.#clock = clock;
    this.#random = random;
    this.#weights = weights;
    this.#endsAt = clock.now() + random.magnitude(2 * MINUTE, 60 * MINUTE);
  }

  /** Current fault of an operation. */
  faultOf(operation: string): Fault {
    this.#advance();
    return (this.#operation ?? operation) === operation ? this.#fault : "healthy";
  }

  /** Milliseconds until the phase ends. */
  get leftMs(): number {
    this.#advance();
    return this.#endsAt - this.#clock.now();
  }

  /** Ends all faults. */
  stop(): void {
    this.#hasStopped = true;
    this.#fault = "healthy";
    this.#endsAt = Infinity;
  }

  #advance(): void {
    while (!this.#hasStopped && this.#clock.now() >= this.#endsAt) {
      const isHealthy = this.#random.chance(0.4);
      this.#fault = isHealthy ? "healthy" : this.#random.weighted(this.#weights);
      const isConfined = this.#random.chance(0.4);
      this.#operation = isConfined ? this.#random.pick(OPERATIONS) : undefined;
      this.#endsAt += this.#random.magnitude(2 * MINUTE, 180 * MINUTE);
    }
  }
}
