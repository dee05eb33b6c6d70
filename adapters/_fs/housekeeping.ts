import { isReadOnly } from "../_shared/errno.ts";
import type { StoreContext } from "./store_context.ts";

/** Interval of housekeeping, in milliseconds. */
const INTERVAL_MS = 600_000;

/** One task of {@linkcode Housekeeping}. */
export type HousekeepingStep = () => Promise<unknown>;

/** Runs tasks one after the other in the background, again and again until the adapter closes. */
export class Housekeeping {
  readonly #context: StoreContext;
  #running: Promise<void> = Promise.resolve();
  #cancel = (): void => {};

  constructor(context: StoreContext) {
    this.#context = context;
  }

  /** Runs `first` now, and `later` from the next time on. */
  start(first: readonly HousekeepingStep[], later: readonly HousekeepingStep[]): void {
    const { clock, signal } = this.#context;
    this.#running = this.#run(first).then(() => {
      if (signal.aborted) return;
      const again = (): void => this.start(later, later);
      this.#cancel = clock.schedule(again, INTERVAL_MS, { background: true });
    });
  }

  /** Cancels the next run, and waits for this one. */
  async close(): Promise<void> {
    this.#cancel();
    await this.#running;
  }

  async #run(steps: readonly HousekeepingStep[]): Promise<void> {
    for (const step of steps) {
      try {
        await step();
      } catch (cause) {
        // A read-only directory needs no cleanup, and a missing one no count.
        const isNothingToDo = isReadOnly(cause) || cause instanceof Deno.errors.NotFound;
        if (!isNothingToDo) this.#context.report("recover", cause);
      }
    }
  }
}
