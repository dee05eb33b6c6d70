import { Listeners } from "../base/listeners.ts";
import { validateCacheSalt } from "../keys/object_key.ts";
import { type OptionRules, readOptions } from "../base/options.ts";

/** Maximum bytes of the objects under one cache salt. A limit that is left out does not apply. */
export interface Quota {
  /** Limit in device memory. */
  readonly l1Bytes?: number;
  /** Limit in each storage adapter. */
  readonly l2Bytes?: number;
}

const bytes = { type: "number", minimum: 0, multipleOf: 1 } as const;
const rules: OptionRules<Quota> = { l1Bytes: bytes, l2Bytes: bytes };

/** Quotas of cache salts, and the default for salts without one. */
export class QuotaRegistry {
  readonly #quotas = new Map<string, Quota>();
  readonly #listeners = new Listeners<(salt: string | undefined) => void>();
  #default: Quota = {};
  /** Number of salts with a limit in the adapters. */
  #boundedSalts = 0;

  /** Whether any salt has a limit in the adapters. */
  get boundsL2(): boolean {
    return this.#boundedSalts > 0 || this.#default.l2Bytes !== undefined;
  }

  /** Quota of salts without one of their own; unlimited at first. */
  get default(): Quota {
    return this.#default;
  }

  /**
   * Sets the quota of salts without one of their own.
   *
   * @throws {TypeError} If a key is unknown, or a value is not a number.
   * @throws {RangeError} If a number is not a safe integer of at least 0.
   */
  setDefault(quota: Quota): void {
    this.#default = checkedQuota(quota);
    this.#notify(undefined);
  }

  /**
   * Sets the quota of a salt. Objects beyond it are evicted at once, unless they are leased, pinned
   * or dirty.
   *
   * @throws {TypeError} If the salt is not a string or has a control character, a key is unknown,
   * or a value is not a number.
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
   * Quota that was set for a salt.
   *
   * @throws {TypeError | RangeError} If the salt is not valid.
   */
  get(salt: string): Quota | undefined {
    validateCacheSalt(salt);
    return this.#quotas.get(salt);
  }

  /** Quota that applies to a salt: its own, or the default. */
  effective(salt: string): Quota {
    return this.#quotas.get(salt) ?? this.#default;
  }

  /**
   * Removes the quota of a salt, so that the default applies again.
   *
   * @returns Whether it had a quota of its own.
   * @throws {TypeError | RangeError} If the salt is not valid.
   */
  delete(salt: string): boolean {
    validateCacheSalt(salt);
    this.#count(this.#quotas.get(salt), -1);
    const isDeleted = this.#quotas.delete(salt);
    if (isDeleted) this.#notify(salt);
    return isDeleted;
  }

  /** All quotas that were set, ordered by salt. */
  list(): { salt: string; quota: Quota }[] {
    return [...this.#quotas].map(([salt, quota]) => ({ salt, quota }))
      .sort((a, b) => a.salt < b.salt ? -1 : 1);
  }

  /**
   * Calls `listener` after each change with the salt, or with `undefined` if the default changed.
   *
   * @returns A function that removes the listener.
   */
  onChange(listener: (salt: string | undefined) => void): () => void {
    return this.#listeners.add(listener);
  }

  #count(quota: Quota | undefined, sign: 1 | -1): void {
    if (quota?.l2Bytes !== undefined) this.#boundedSalts += sign;
  }

  #notify(salt: string | undefined): void {
    this.#listeners.tell((listener) => listener(salt));
  }
}

function checkedQuota(quota: Quota): Quota {
  return Object.freeze(readOptions("quota", quota, rules, "quota."));
}
