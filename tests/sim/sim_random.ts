import type { RandomSource } from "../../src/runtime/random.ts";
import { seededRandom } from "../support/random.ts";

/** Random numbers that are the same whenever the seed is. */
export class SimRandom implements RandomSource {
  readonly #source: ReturnType<typeof seededRandom>;

  constructor(seed: number) {
    this.#source = seededRandom(seed);
  }

  /** From 0 to below 1. */
  next(): number {
    return this.#source.below(2 ** 32) / 2 ** 32;
  }

  /** An integer from 0 to below `count`. */
  below(count: number): number {
    return Math.floor(this.next() * count);
  }

  /** True so often. */
  chance(probability: number): boolean {
    return this.next() < probability;
  }

  /** From `least` to below `most`. */
  between(least: number, most: number): number {
    return least + this.next() * (most - least);
  }

  /** From `least` to below `most`, every order of magnitude as often. */
  magnitude(least: number, most: number): number {
    return least * (most / least) ** this.next();
  }

  /** Times between events that know nothing of each other. */
  exponential(mean: number): number {
    return -mean * Math.log(1 - this.next());
  }

  /** One of some, which must not be none. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  /** One of the names, each as often as its weight says. */
  weighted<Name extends string>(weights: Readonly<Partial<Record<Name, number>>>): Name {
    const entries = Object.entries(weights) as [Name, number][];
    let left = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of entries) {
      left -= weight;
      if (left < 0) return name;
    }
    throw new RangeError("Weights must be given: received none");
  }

  /** Random numbers for another part, which draws as often as it likes. */
  fork(): SimRandom {
    return new SimRandom(Math.floor(this.next() * 2 ** 32));
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}
