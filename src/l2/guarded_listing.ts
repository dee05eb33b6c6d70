import type { L2Adapter, ListedObject, ListOptions } from "../adapter/contract.ts";
import { checkListed } from "./adapter_answers.ts";
import type { CallOutcome } from "./adapter_calls.ts";

/** Options of a guarded listing. */
export interface GuardedListOptions extends Partial<ListOptions> {
  /** Called before the end if the listing may be incomplete. */
  readonly onIncomplete?: () => void;
}

/** Calls with which a listing moves. */
export interface ListingCalls {
  /** Fetches the next object. */
  readonly next: <T>(work: () => Promise<T>) => Promise<CallOutcome<T>>;
  /** Ends the iteration in the adapter; made even if the adapter is paused or closed. */
  readonly leave: (work: () => Promise<unknown>) => Promise<unknown>;
}

/** Lists the objects of an adapter, until it fails, misses a deadline or is skipped. */
export async function* listGuarded(
  adapter: L2Adapter,
  { onIncomplete, ...options }: GuardedListOptions,
  calls: ListingCalls,
): AsyncGenerator<ListedObject, void> {
  const stop = new AbortController();
  let objects: AsyncIterator<unknown> | undefined;
  let hasEnded = false;
  let isStuck = false;
  const next = async (): Promise<ListedObject | undefined> => {
    objects ??= adapter.list?.({ ...options, signal: stop.signal })[Symbol.asyncIterator]();
    const step = await objects?.next();
    hasEnded = step?.done ?? true;
    return hasEnded ? undefined : checkListed(step?.value);
  };
  try {
    while (!options.signal?.aborted) {
      const { value, settled } = await calls.next(next);
      isStuck = settled !== undefined;
      if (value === undefined) return hasEnded ? undefined : onIncomplete?.();
      yield value;
    }
    onIncomplete?.();
  } finally {
    stop.abort();
    const leave = async (): Promise<unknown> => await objects?.return?.();
    // A generator that hangs in a step can only return after it.
    if (isStuck) leave().catch(() => {});
    else if (!hasEnded && objects !== undefined) await calls.leave(leave);
  }
}
