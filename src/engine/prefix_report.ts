import { decisionInWords, type LoadDecision } from "../prefetch/load_decision.ts";
import { formatCount, type MatchReport, sharesInWords } from "../prefetch/match_report.ts";
import { missInWords, type MissReason } from "../prefetch/miss_reason.ts";
import type { PromptDifference } from "./recent_prompts.ts";

/** Tokens whose KV an adapter delivered. */
export interface AdapterTokens {
  /** Id of the adapter. */
  readonly id: number;
  /** Type of the adapter. */
  readonly type: string;
  /** With several groups of layers, estimated from the share of objects. */
  readonly tokens: number;
}

/** Why a prompt was not served to its end. */
export interface PrefixMiss {
  /** Index of the first token of the chunk that is missing. */
  readonly token: number;
  /** Index of the token behind that chunk. */
  readonly endToken: number;
  /** Why that chunk is missing. */
  readonly reason: MissReason;
}

/** How much of a prompt was served from where, and why no more of it was. */
export interface PrefixReport {
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  /** Tokens that could be served: those of complete chunks, but never the last one of the prompt. */
  readonly askedTokens: number;
  /** Tokens that were served. */
  readonly tokens: number;
  /** Number of them that were already in device memory. */
  readonly l1Tokens: number;
  /** Tokens that the adapters delivered. */
  readonly adapters: readonly AdapterTokens[];
  /**
   * Tokens that an engine wrote, or that were loaded for another match, while this one waited for
   * others.
   */
  readonly otherTokens: number;
  /** What ends the prefix; `undefined` if all tokens that could be served were. */
  readonly miss?: PrefixMiss;
  /** The decision to compute what is missing rather than to load it, if there was one. */
  readonly decision?: LoadDecision;
  /** The most similar of the recent prompts with the same salt; only of a prompt that misses. */
  readonly difference?: PromptDifference;
}

/** Converts the report on a match from chunks to tokens. */
export function prefixReport(
  { askedChunks, length, adapters, l1Objects, otherObjects, miss, decision }: MatchReport,
  prompt: Pick<PrefixReport, "promptTokens" | "tokens" | "l1Tokens" | "difference"> & {
    readonly chunkTokens: number;
  },
): PrefixReport {
  const { promptTokens, tokens, l1Tokens, chunkTokens, difference } = prompt;
  const all = adapters.reduce((sum, { objects }) => sum + objects, l1Objects + otherObjects);
  const chunksOf = (objects: number): number => Math.floor(length * objects / all);
  let tokensLeft = tokens - l1Tokens;
  const shares = adapters.map(({ id, type, objects }, i): AdapterTokens => {
    const isLast = i === adapters.length - 1 && otherObjects === 0;
    const share = isLast ? tokensLeft : Math.min(tokensLeft, chunksOf(objects) * chunkTokens);
    tokensLeft -= share;
    return { id, type, tokens: share };
  });
  return {
    promptTokens,
    askedTokens: Math.min(askedChunks * chunkTokens, Math.max(0, promptTokens - 1)),
    tokens,
    l1Tokens,
    adapters: shares,
    otherTokens: tokensLeft,
    ...(miss === undefined ? {} : {
      miss: {
        token: miss.chunk * chunkTokens,
        endToken: (miss.chunk + 1) * chunkTokens,
        reason: miss.reason,
      },
    }),
    ...(decision === undefined ? {} : { decision }),
    ...(difference === undefined ? {} : { difference }),
  };
}

/** Says a report in one sentence. */
export function explainPrefix(report: PrefixReport): string {
  const { promptTokens, askedTokens, tokens, adapters, otherTokens, l1Tokens, miss, decision } =
    report;
  if (askedTokens === 0) {
    return `The prompt of ${formatCount(promptTokens)} tokens has no complete chunk to look up.`;
  }
  const shares = sharesInWords(tokens, [
    { from: "L1", amount: l1Tokens },
    ...adapters.map(({ type, tokens }) => ({ from: type, amount: tokens })),
    { from: "concurrent work", amount: otherTokens },
  ]);
  const served = `${formatCount(tokens)} of ${formatCount(promptTokens)} tokens were served`;
  if (miss === undefined) return `${served} (${shares}), all that are in complete chunks.`;
  if (decision !== undefined) return `${served} (${shares}); ${decisionInWords(decision)}.`;
  const chunk = `the chunk that begins at token ${formatCount(miss.token)}`;
  const sentence = `${served} (${shares}); ${missInWords(miss.reason, chunk)}`;
  return `${sentence}${differenceInWords(report)}.`;
}

function differenceInWords({ difference, promptTokens, miss }: PrefixReport): string {
  if (difference === undefined || miss === undefined) return "";
  const { token, agoMs } = difference;
  const other = `the prompt of ${durationInWords(agoMs)} ago`;
  // Another prompt was served, which is not among the recent ones any more.
  if (token < miss.token) return "";
  if (token >= miss.endToken) return `; ${other} has the same tokens there`;
  if (token === difference.promptTokens) {
    return `; ${other} ended there, at token ${formatCount(token)}`;
  }
  return `; it differs from ${other} at token ${formatCount(token)} of ${
    formatCount(promptTokens)
  }`;
}

function durationInWords(ms: number): string {
  if (ms < 10_000) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 120_000) return `${Math.round(ms / 1_000)} s`;
  if (ms < 7_200_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}
