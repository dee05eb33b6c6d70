import type { LoadParts } from "./batch_mover.ts";
import type { PrefetchRequest } from "./prefetch_request.ts";

/** Options of {@linkcode SharedLoads}. */
export interface SharedLoadsOptions extends Pick<LoadParts, "l1" | "adapters" | "barrier"> {
  /** Called for each object that a request waits for while another one loads it. */
  readonly onShared: () => void;
}

/** A request that waits for an object that another one is to load. */
interface SharedLoad {
  readonly request: PrefetchRequest;
  readonly slot: number;
}

/** Single-flight: each object is loaded by one request, however many want it. */
export class SharedLoads {
  readonly #options: SharedLoadsOptions;
  /** For each object that a request is to load, the requests that wait for it. */
  readonly #inFlight = new Map<string, SharedLoad[]>();

  constructor(options: SharedLoadsOptions) {
    this.#options = options;
  }

  /**
   * Decides what is done about each object that is wanted.
   *
   * @returns The slots of those that this request is to load.
   */
  divide(request: PrefetchRequest): number[] {
    const { l1, adapters, barrier, onShared } = this.#options;
    const { table } = request;
    const own: number[] = [];
    for (let slot = 0; slot < table.size; slot++) {
      if (!table.hasWindows && !table.isPossible(slot)) break;
      if (table.state(slot) !== "wanted") continue;
      const key = table.key(slot);
      const waiters = this.#inFlight.get(key.id);
      const filled = l1.whenFilled(key);
      if (waiters !== undefined) {
        onShared();
        table.transition(slot, "shared");
        waiters.push({ request, slot });
      } else if (filled !== undefined) {
        table.transition(slot, "filling");
        filled.then(() => {
          if (table.state(slot) !== "filling") return;
          if (!request.lease(slot, "L1")) table.transition(slot, "wanted");
        });
      } else if (barrier.blocks(key)) table.transition(slot, "blocked");
      else if (adapters.serving.length === 0) table.miss(slot, "absent");
      else {
        table.transition(slot, "asked");
        this.#inFlight.set(key.id, []);
        own.push(slot);
      }
    }
    return own;
  }

  /** Passes what became of an object to the requests that wait for it. */
  settle(loading: PrefetchRequest, slot: number): void {
    const { table } = loading;
    const { id } = table.key(slot);
    const waiters = this.#inFlight.get(id) ?? [];
    this.#inFlight.delete(id);
    const reason = table.reason(slot);
    for (const { request, slot: waiting } of waiters) {
      if (request.table.state(waiting) !== "shared") continue;
      const isResident = table.state(slot) === "resident";
      if (isResident && request.lease(waiting, loading.loaderOf(slot))) continue;
      const isFull = reason === "no-room" || reason === "lost";
      const isUndecided = reason === undefined || reason === "computed";
      if (isUndecided || isFull) request.table.transition(waiting, "wanted");
      else request.table.miss(waiting, reason);
      if (isFull) request.endBefore(waiting);
    }
  }
}
