import { getLogger } from "@logtape/logtape";
import type { ObjectKey } from "../keys/object_key.ts";
import type { L1Cache, L1Listener } from "../l1/l1_cache.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import type { Clock } from "../runtime/clock.ts";
import { type AdapterEvictionStatus, AdapterEvictor } from "./adapter_evictor.ts";
import type { QuotaRegistry } from "./quota_registry.ts";

/** How the cache bounds an adapter that does not bound itself. */
export interface AdapterEviction {
  /** Most bytes of objects; left out, only quotas bound it. */
  readonly capacityBytes?: number;
  /** Share of the capacity above which objects are removed. @default {0.8} */
  readonly highWatermark?: number;
  /** Share of the capacity that is left then. @default {0.6} */
  readonly lowWatermark?: number;
}

/** State of an {@linkcode EvictionController}. */
export interface EvictionStatus {
  /** The adapters. */
  readonly adapters: readonly AdapterEvictionStatus[];
  /** Bytes evicted from L1 for a watermark or a quota that was lowered. */
  readonly l1EvictedBytes: number;
}

/** How an {@linkcode EvictionController} is set up. */
export interface EvictionControllerOptions {
  /** Device memory. */
  readonly l1: L1Cache;
  /** Bounds of the salts. */
  readonly quotas: QuotaRegistry;
  /** Source of time. */
  readonly clock: Clock;
  /** Whether an object must not be evicted from an adapter. */
  readonly isPinned?: (key: ObjectKey) => boolean;
  /** Beyond the `high` share of its capacity L1 evicts down to the `low` one; left out, never. */
  readonly l1Watermark?: { readonly high: number; readonly low: number };
}

const logger = getLogger(["kvtier", "eviction"]);

/**
 * Keeps the tiers within their bounds: L1 below its watermark, the adapters below theirs, and the
 * objects of each salt within its quota. It acts on what happens, and never polls.
 */
export class EvictionController implements Disposable {
  readonly #options: EvictionControllerOptions;
  readonly #evictors = new Map<AdapterGuard, AdapterEvictor>();
  readonly #running = new Set<Promise<void>>();
  readonly #l1Listener: L1Listener = { admitted: () => this.#shrinkL1() };
  readonly #ignoreQuotas: () => void;
  #l1EvictedBytes = 0;

  /**
   * Starts listening to L1 and to the quotas.
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
   * Bounds an adapter from now on. One that evicts by itself is left to do that: for it, only
   * quotas count.
   *
   * @throws {RangeError} If a bound is out of range.
   */
  attach(guard: AdapterGuard, eviction: AdapterEviction = {}): void {
    const { quotas, clock, isPinned = () => false } = this.#options;
    const bounds = byteBounds(eviction);
    this.detach(guard);
    if (bounds !== undefined && !guard.canDelete) {
      const { id, type } = guard;
      logger.warn("{type}: it cannot delete objects, so nothing bounds it", { id, type });
    }
    const evictor = new AdapterEvictor({
      guard,
      quotas,
      clock,
      isPinned,
      bounds: guard.capabilities.evicts === true ? undefined : bounds,
      track: (work) => this.#track(work),
    });
    this.#evictors.set(guard, evictor);
    evictor.update(quotas.boundsL2);
  }

  /** Leaves an adapter alone; what is being removed from it at the moment still is. */
  detach(guard: AdapterGuard): void {
    this.#evictors.get(guard)?.[Symbol.dispose]();
    this.#evictors.delete(guard);
  }

  /** Resolves when nothing is being evicted from adapters, or listed to find out what they hold. */
  async idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  /** Counters now. */
  reportStatus(): EvictionStatus {
    const adapters = [...this.#evictors.values()].map((evictor) => evictor.reportStatus());
    return { adapters, l1EvictedBytes: this.#l1EvictedBytes };
  }

  /** Stops: nothing is evicted any more. */
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
