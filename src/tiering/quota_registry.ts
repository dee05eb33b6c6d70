import { validateCacheSalt } from "../keys/object_key.ts";
import { type OptionRules, readOptions } from "../runtime/options.ts";

/** Most bytes of the objects under one cache salt; what is left out has no limit. */
export interface Quota {
  /** In device memory. */
  readonly l1Bytes?: number;
  /** In each storage adapter. */
  readonly l2Bytes?: number;
}

const bytes = { type: "number", minimum: 0, multipleOf: 1 } as const;
const rules: OptionRules<Quota> = { l1Bytes: bytes, l2Bytes: bytes };

/** How many bytes the objects under each cache salt may have. */
export class QuotaRegistry {
  readonly #quotas = new Map<string, Quota>();
  readonly #listeners = new Set<(salt: string | undefined) => void>();
  #default: Quota = {};
  /** Salts with a bound in the adapters. */
  #boundedSalts = 0;

  /** Whether any salt has a bound in the adapters. */
  get boundsL2(): boolean {
    return this.#boundedSalts > 0 || this.#default.l2Bytes !== undefined;
  }

  /** The quota of every salt that has none of its own; no limit at first. */
  get default(): Quota {
    return this.#default;
  }

  /**
   * Sets the quota of every salt that has none of its own.
   *
   * @throws {TypeError} If a key is unknown, or a value is no number.
   * @throws {RangeError} If a number is not a safe integer of at least 0.
   */
  setDefault(quota: Quota): void {
    this.#default = checkedQuota(quota);
    this.#notify(undefined);
  }

  /**
   * Sets the quota of a salt. What is too much then is removed at once, as far as it may leave.
   *
   * @throws {TypeError} If the salt is no string, or has a control character, a key is unknown, or a
   * value is no number.
   * @throws {RangeError} If the salt is too long, or a number is not a safe integer of at least 0.
   */
  set(salt: string, quota: Quota): void {
    validateCacheSalt(salt);
    const checked = checkedQuota(quota);
    this.#count(this.#quotas.get(salt), -1);
    this.#quotas.set(salt, checked);
    this.#count(checked, 1);
    this.#notify(salt);
  }

  /**
   * The quota that was set for a salt.
   *
   * @throws {TypeError | RangeError} If the salt is none.
   */
  get(salt: string): Quota | undefined {
    validateCacheSalt(salt);
    return this.#quotas.get(salt);
  }

  /** The quota that holds for a salt: its own, or the default. */
  effective(salt: string): Quota {
    return this.#quotas.get(salt) ?? this.#default;
  }

  /**
   * Gives a salt the default again.
   *
   * @returns Whether it had a quota of its own.
   * @throws {TypeError | RangeError} If the salt is none.
   */
  delete(salt: string): boolean {
    validateCacheSalt(salt);
    this.#count(this.#quotas.get(salt), -1);
    const isDeleted = this.#quotas.delete(salt);
    if (isDeleted) this.#notify(salt);
    return isDeleted;
  }

  /** The quotas that were set, in the order of their salts. */
  list(): { salt: string; quota: Quota }[] {
    return [...this.#quotas].map(([salt, quota]) => ({ salt, quota }))
      .sort((a, b) => a.salt < b.salt ? -1 : 1);
  }

  /**
   * Calls `listener` after each change with the salt, or with `undefined` if it was the default.
   *
   * @returns A function that ends that.
   */
  onChange(listener: (salt: string | undefined) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #count(quota: Quota | undefined, sign: 1 | -1): void {
    if (quota?.l2Bytes !== undefined) this.#boundedSalts += sign;
  }

  #notify(salt: string | undefined): void {
    for (const listener of this.#listeners) listener(salt);
  }
}

function checkedQuota(quota: Quota): Quota {
  return Object.freeze(readOptions("quota", quota, rules, "quota."));
}
