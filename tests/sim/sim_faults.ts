import type { Clock } from "../../src/runtime/clock.ts";
import type { SimRandom } from "./sim_random.ts";

/** How an adapter behaves for a while. */
export type Fault =
  | "healthy"
  /** Calls take long, some longer than their deadlines. */
  | "slow"
  /** Calls reject. */
  | "rejecting"
  /** Calls do not end before the phase does, some never. */
  | "hanging"
  /** Some keys fail. */
  | "flaky"
  /** What is loaded is not what was stored. */
  | "corrupting"
  /** Objects vanish, and what is said to be stored is not. */
  | "losing"
  /** Lookups say what is not so. */
  | "lying"
  /** Nothing, or only a part, is stored. */
  | "full"
  /** Answers have another shape than the contract says. */
  | "nonsense";

const MINUTE = 60_000;
/** What a fault may be confined to. */
const OPERATIONS = ["store", "lookup", "load", "delete"];

/** How an adapter behaves over time: phases of minutes to hours, half of them healthy. */
export class FaultPhases {
  readonly #clock: Clock;
  readonly #random: SimRandom;
  readonly #weights: Readonly<Partial<Record<Fault, number>>>;
  #fault: Fault = "healthy";
  /** What the fault is confined to. */
  #operation: string | undefined;
  #endsAt: number;
  #hasStopped = false;

  /** `weights` says how often each fault is chosen. */
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

  /** The fault of an operation at this moment. */
  faultOf(operation: string): Fault {
    this.#advance();
    return (this.#operation ?? operation) === operation ? this.#fault : "healthy";
  }

  /** Time until that changes. */
  get leftMs(): number {
    this.#advance();
    return this.#endsAt - this.#clock.now();
  }

  /** From now on everything works. */
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
