import type { RandomSource } from "../../src/base/random.ts";
import { seededRandom } from "../support/random.ts";

/** Deterministic random numbers from a seed. */
export class SimRandom implements RandomSource {
  readonly #source: ReturnType<typeof seededRandom>;

  constructor(seed: number) {
    this.#source = seededRandom(seed);
  }

  /** Number from 0 (inclusive) to 1 (exclusive). */
  next(): number {
    return this.#source.below(2 ** 32) / 2 ** 32;
  }

  /** Integer from 0 to `count - 1`. */
  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  /** `true` with the given probability. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** Number from `min` (inclusive) to `max` (exclusive). */
  between(min: number, max: number): number {
    return min + this.next() * (max - min);
  }

  /** Number from `min` (inclusive) to `max` (exclusive), uniform over orders of magnitude. */
  magnitude(min: number, max: number): number {
    return min * (max / min) ** this.next();
  }

  /** Time between independent events with the given mean. */
  exponential(mean: number): number {
    return -mean * Math.log(1 - this.next());
  }

  /** One of the given items, of which there must be at least one. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  /** One of the names, chosen by weight. */
  weighted<Name extends string>(weights: Readonly<Partial<Record<Name, number>>>): Name {
    const entries = Object.entries(weights) as [Name, number][];
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of entries) {
      left -= weight;
      if (left < 0) return name;
    }
    throw new RangeError("Weights must be given: received none");
  }

  /** Independent random numbers for another part of the simulation. */
  fork(): SimRandom {
    return new SimRandom(Math.floor(this.next() * 2 ** 32));
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}
