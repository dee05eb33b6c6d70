import { getLogger } from "@logtape/logtape";
import type { ObjectKey } from "../keys/object_key.ts";
import type { L1Cache, L1Listener } from "../l1/l1_cache.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { AdapterEviction } from "../l2/eviction_config.ts";
import { evictionPolicy } from "../policies/eviction_policy.ts";
import type { Clock } from "../base/clock.ts";
import { type AdapterEvictionStatus, AdapterEvictor } from "./adapter_evictor.ts";
import type { QuotaRegistry } from "./quota_registry.ts";

/** Status of an {@linkcode EvictionController}. */
export interface EvictionStatus {
  /** One entry for each adapter. */
  readonly adapters: readonly AdapterEvictionStatus[];
  /** Bytes evicted from L1 because of the watermark or a lowered quota. */
  readonly l1EvictedBytes: number;
}

/** Options of {@linkcode EvictionController}. */
export interface EvictionControllerOptions {
  /** Cache in device memory. */
  readonly l1: L1Cache;
  readonly quotas: QuotaRegistry;
  readonly clock: Clock;
  /** Whether a key is pinned: its object is not evicted from adapters. */
  readonly isPinned?: (key: ObjectKey) => boolean;
  /**
   * Shares of the L1 capacity above which eviction starts and at which it stops; if left out, L1
   * evicts only on demand.
   */
  readonly l1Watermark?: { readonly high: number; readonly low: number };
}

const logger = getLogger(["kvtier", "eviction"]);

/**
 * Keeps L1 below its watermark, the adapters within their capacities, and each salt within its
 * quota. It reacts to changes and never polls.
 */
export class EvictionController implements Disposable {
  readonly #options: EvictionControllerOptions;
  readonly #evictors = new Map<AdapterGuard, AdapterEvictor>();
  readonly #running = new Set<Promise<void>>();
  readonly #l1Listener: L1Listener = { admitted: () => this.#shrinkL1() };
  readonly #ignoreQuotas: () => void;
  #l1EvictedBytes = 0;

  /**
   * Subscribes to L1 and to the quotas.
   *
   * @throws {RangeError} If a watermark is out of range.
   */
  constructor(options: EvictionControllerOptions) {
    this.#options = options;
    const { l1, quotas, l1Watermark } = options;
    if (l1Watermark !== undefined) {
      checkWatermarks(l1Watermark);
      l1.addListener(this.#l1Listener);
    }
    this.#ignoreQuotas = quotas.onChange((salt) => this.#applyQuotas(salt));
  }

  /**
   * Enforces limits on an adapter from now on. For an adapter that evicts by itself, only quotas
   * apply.
   *
   * @throws {RangeError} If a limit is out of range.
   */
  attach(guard: AdapterGuard, eviction: AdapterEviction = {}): void {
    const { quotas, clock, isPinned = () => false } = this.#options;
    const bounds = byteBounds(eviction);
    this.detach(guard);
    if (bounds !== undefined && !guard.canDelete) {
      const { id, type } = guard;
      logger.warn("{type}: it cannot delete objects, so its capacity is not enforced", {
        id,
        type,
      });
    }
    const evictor = new AdapterEvictor({
      guard,
      quotas,
      clock,
      isPinned,
      policy: evictionPolicy(eviction.policy ?? "LRU"),
      bounds: guard.capabilities.evicts === true ? undefined : bounds,
      track: (work) => this.#track(work),
    });
    this.#evictors.set(guard, evictor);
    evictor.update(quotas.boundsL2);
  }

  /** Stops enforcing limits on an adapter. A removal in flight still completes. */
  detach(guard: AdapterGuard): void {
    this.#evictors.get(guard)?.[Symbol.dispose]();
    this.#evictors.delete(guard);
  }

  /** Resolves when no adapter is being evicted from or listed. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  reportStatus(): EvictionStatus {
    const adapters = [...this.#evictors.values()].map((evictor) => evictor.reportStatus());
    return { adapters, l1EvictedBytes: this.#l1EvictedBytes };
  }

  /** Stops all eviction. */
  [Symbol.dispose](): void {
    this.#options.l1.removeListener(this.#l1Listener);
    this.#ignoreQuotas();
    for (const guard of [...this.#evictors.keys()]) this.detach(guard);
  }

  #shrinkL1(): void {
    const { l1, l1Watermark: { high, low } = { high: 1, low: 1 } } = this.#options;
    if (l1.usedBytes <= high * l1.capacityBytes) return;
    this.#l1EvictedBytes += l1.evictTo(low * l1.capacityBytes);
  }

  #applyQuotas(changed: string | undefined): void {
    const { l1, quotas } = this.#options;
    for (const salt of changed === undefined ? l1.usageBySalt().keys() : [changed]) {
      const limit = quotas.effective(salt).l1Bytes ?? Infinity;
      if (l1.usedBytesOf(salt) > limit) this.#l1EvictedBytes += l1.evictSalt(salt, limit);
    }
    for (const evictor of this.#evictors.values()) {
      evictor.update(quotas.boundsL2);
      evictor.applyQuotas(changed);
    }
  }

  #track(work: Promise<void>): void {
    const running = work.catch((error: unknown) => {
      logger.error("Eviction failed: {error}", { error });
    }).finally(() => this.#running.delete(running));
    this.#running.add(running);
  }
}

function byteBounds(
  { capacityBytes, highWatermark = 0.8, lowWatermark = 0.6 }: AdapterEviction,
): { high: number; low: number } | undefined {
  checkWatermarks({ high: highWatermark, low: lowWatermark });
  if (capacityBytes === undefined) return undefined;
  if (!(Number.isSafeInteger(capacityBytes) && capacityBytes >= 0)) {
    throw new RangeError(
      `capacityBytes must be an integer of at least 0: received ${capacityBytes}`,
    );
  }
  return { high: highWatermark * capacityBytes, low: lowWatermark * capacityBytes };
}

function checkWatermarks({ high, low }: { readonly high: number; readonly low: number }): void {
  if (low >= 0 && low <= high && high <= 1) return;
  throw new RangeError(
    `Watermarks must be 0 <= low <= high <= 1: received low ${low}, high ${high}`,
  );
}
