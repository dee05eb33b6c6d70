import type { LoadDecision } from "./load_decision.ts";
import type { Miss, PrefetchResult } from "./prefetch_request.ts";

/** An adapter, and what it delivered. */
export interface AdapterShare {
  /** Id of the adapter. */
  readonly id: number;
  /** Type of the adapter. */
  readonly type: string;
  /** Number of objects of the prefix that it loaded, for this match or a concurrent one. */
  readonly objects: number;
}

/** Where the objects of a match came from, and why it has no more of them. */
export interface MatchReport {
  /** Chunks that were asked for. */
  readonly askedChunks: number;
  /** Chunks of the prefix that was found. */
  readonly length: number;
  /** Number of its objects that were already in L1. */
  readonly l1Objects: number;
  /** The adapters that its other objects came from. */
  readonly adapters: readonly AdapterShare[];
  /**
   * Number of its objects that became resident while the match waited for others: an engine wrote
   * them, or they were loaded for another match.
   */
  readonly otherObjects: number;
  /** The first chunk that is missing; `undefined` if nothing is. */
  readonly miss?: Miss;
  /** The decision to compute what is missing rather than to load it, if there was one. */
  readonly decision?: LoadDecision;
}

/** Reports on a request for `askedChunks` chunks. */
export function reportOf(result: PrefetchResult, askedChunks: number): MatchReport {
  const { length, l1Objects, leases, miss, decision } = result;
  const adapters = [...result.loadedObjects].map(([{ id, type }, objects]): AdapterShare => {
    return { id, type, objects };
  });
  const loaded = adapters.reduce((sum, { objects }) => sum + objects, 0);
  const objects = leases.reduce((sum, group) => sum + group.length, 0);
  const otherObjects = objects - l1Objects - loaded;
  const report = { askedChunks, length, l1Objects, adapters, otherObjects };
  return {
    ...report,
    ...(miss === undefined ? {} : { miss }),
    ...(decision === undefined ? {} : { decision }),
  };
}

/** Says what came from where: "2,048 from L1, 96 from fs". */
export function sharesInWords(
  total: number,
  shares: readonly { readonly from: string; readonly amount: number }[],
): string {
  if (total === 0) return "nothing";
  return shares.filter(({ amount }) => amount > 0)
    .map(({ from, amount }) => `${formatCount(amount)} from ${from}`).join(", ");
}

/** A number with thousands separators. */
export function formatCount(count: number): string {
  return count.toLocaleString("en-US");
}
