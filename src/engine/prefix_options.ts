import type { PositionedKey, TokenIds } from "../keys/chunk_hash.ts";
import type { KvLayout } from "../keys/kv_layout.ts";
import { checkNotNullish, type OptionRules, readOptions, SIGNAL, STRING } from "../base/options.ts";
import type { KvGroup } from "./kv_groups.ts";
import type { PrefillReport } from "./prefill_rate.ts";

/** Options of a {@linkcode PrefixCache}. */
export interface PrefixCacheOptions {
  /** The model. */
  readonly model: {
    /** Its name: 1 to 256 UTF-8 bytes without `@`, NUL and control characters. */
    readonly name: string;
    /** Version of the weights: a commit, a release, a digest. @default {""} */
    readonly revision?: string;
  };
  /** Layout of one chunk of its KV, or one group per kind of attention. */
  readonly layout: KvLayout | readonly KvGroup[];
  /** Identifies the part of the model's KV in this process; see `packKvRank`. @default {0} */
  readonly kvRank?: number;
  /**
   * Deadline of a match in milliseconds: `baseMs`, plus `perTokenMs` for each token of the prompt.
   * With a `perTokenMs` below the time of a prefill, no match takes longer than computing the
   * prompt.
   *
   * @default {{ baseMs: 2000, perTokenMs: 0.1 }}
   */
  readonly deadline?: { readonly baseMs?: number; readonly perTokenMs?: number };
  /**
   * Time in milliseconds that the engine takes to compute a token, until
   * {@linkcode PrefixCache.reportPrefill} tells more. Without either, a match loads all that it
   * finds.
   */
  readonly prefillMsPerToken?: number;
  /**
   * Whether a match loads only what is estimated to be faster to load than to compute. Otherwise it
   * loads all that it finds until its deadline.
   *
   * @default {true}
   */
  readonly loadOnlyIfFaster?: boolean;
  /**
   * Number of prompts that are kept, of those put last, so that a hit can say where a prompt differs
   * from them. They take at most 1 MiB. 0 keeps none.
   *
   * @default {8}
   */
  readonly recentPrompts?: number;
}

/** Inputs besides the tokens that determine the KV of a prompt. */
export interface PromptOptions {
  /**
   * Isolates tenants: KV stored under one salt is never found under another. A string of at most 128
   * characters without control characters, such as an e-mail address. Prompts without a salt share
   * their KV; `undefined` and `null` are errors.
   *
   * @default {""}
   */
  readonly salt?: string;
  /**
   * Any other input of the request that changes K and V. A string applies to all tokens (such as the
   * name of a LoRA adapter): prompts with different strings share nothing. A positioned key applies
   * from its token on (such as the digest of an image, at its first placeholder): the chunks before
   * the one that contains the token are shared.
   *
   * @default {""}
   */
  readonly extraKey?: string | readonly PositionedKey[];
}

/** Options of {@linkcode PrefixCache.match}. */
export interface MatchOptions extends PromptOptions {
  /**
   * After this time the hit contains what has been loaded so far.
   *
   * @default {from the `deadline` of the prefix cache}
   */
  readonly deadlineMs?: number;
  /** Aborts the call, which rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Options of {@linkcode PrefixCache.put}. */
export interface PutOptions extends PromptOptions {
  /**
   * Number of tokens, from the start, whose K and V are in the tensors. The default excludes the
   * last sampled token: a decoder computes K and V of a token when it runs it to sample the next
   * one. After a prefill, pass `tokens.length`, so that a last chunk that is exactly full is
   * stored.
   *
   * @default {tokens.length - 1}
   */
  readonly computedTokens?: number;
}

/** Their defaults are shared between prompts; they must not be `undefined` or `null`. */
const IDENTITY_KEYS = ["salt", "extraKey"];

const PROMPT_RULES: OptionRules<PromptOptions> = {
  salt: STRING,
  extraKey: {
    type: "value",
    accepts: (value) => typeof value === "string" || Array.isArray(value),
    expected: "a string or an array of { atToken, key }",
  },
};
/** Rules for the limits of a match. */
export const LIMIT_RULES: OptionRules<Pick<MatchOptions, "deadlineMs" | "signal">> = {
  deadlineMs: { type: "number", minimum: 0 },
  signal: SIGNAL,
};
const MATCH_RULES: OptionRules<MatchOptions> = { ...PROMPT_RULES, ...LIMIT_RULES };
const RULES = {
  match: MATCH_RULES,
  warm: MATCH_RULES,
  put: { ...PROMPT_RULES, computedTokens: { type: "number", minimum: 0, multipleOf: 1 } },
  keys: PROMPT_RULES,
} satisfies Readonly<Record<string, OptionRules<object>>>;

const MODEL_RULES: OptionRules<PrefixCacheOptions["model"]> = { name: STRING, revision: STRING };
const MILLISECONDS = { type: "number", minimum: 0 } as const;
const CACHE_RULES: OptionRules<PrefixCacheOptions> = {
  model: {
    type: "value",
    accepts: (value) => typeof value === "object" && value !== null && "name" in value,
    expected: "{ name, revision? }",
  },
  // Checked by `groupsOf`.
  layout: { type: "value", accepts: () => true, expected: "a layout" },
  kvRank: { type: "number", minimum: 0, maximum: 0xffffffff, multipleOf: 1, default: 0 },
  deadline: {
    type: "object",
    rules: {
      baseMs: { ...MILLISECONDS, default: 2_000 },
      perTokenMs: { ...MILLISECONDS, default: 0.1 },
    },
  },
  prefillMsPerToken: MILLISECONDS,
  loadOnlyIfFaster: {
    type: "value",
    accepts: (value) => typeof value === "boolean",
    expected: "true or false",
  },
  recentPrompts: { type: "number", minimum: 0, maximum: 1_024, multipleOf: 1, default: 8 },
};

/**
 * Checks the options of a {@linkcode PrefixCache}, except for the layout, and fills in defaults.
 *
 * @throws {TypeError | RangeError} If a key is unknown, a value is not valid, or one that identifies
 * the cached objects is present but `undefined` or `null`.
 */
export function readCacheOptions(options: PrefixCacheOptions): {
  readonly model: PrefixCacheOptions["model"];
  readonly layout: PrefixCacheOptions["layout"];
  readonly kvRank: number;
  readonly deadline: { readonly baseMs: number; readonly perTokenMs: number };
  readonly prefillMsPerToken: number | undefined;
  readonly loadOnlyIfFaster: boolean;
  readonly recentPrompts: number;
} {
  const what = "PrefixCache options";
  const read = readOptions(what, options, CACHE_RULES);
  const { model, layout, kvRank, deadline, prefillMsPerToken } = read;
  checkNotNullish(what, options, ["kvRank"]);
  if (model === undefined) {
    throw new TypeError("model must be { name, revision? }: received undefined");
  }
  checkNotNullish("model", model, ["revision"]);
  return {
    model: readOptions("model", model, MODEL_RULES, "model."),
    layout,
    kvRank: kvRank as number,
    deadline: deadline as { baseMs: number; perTokenMs: number },
    prefillMsPerToken,
    loadOnlyIfFaster: read.loadOnlyIfFaster !== false,
    recentPrompts: read.recentPrompts as number,
  };
}

/**
 * Throws unless the options of a call for a prompt are valid.
 *
 * @throws {TypeError | RangeError} If a key is unknown, a value is not valid, or one that identifies
 * the prompt is present but `undefined` or `null`.
 */
export function checkPromptOptions(call: keyof typeof RULES, options: PromptOptions): void {
  const what = `${call}() options`;
  readOptions(what, options, RULES[call]);
  checkNotNullish(what, options, IDENTITY_KEYS);
}

const MAX = Number.MAX_SAFE_INTEGER;
const COUNT = { type: "number", minimum: 0, maximum: MAX, multipleOf: 1 } as const;
const REPORT_RULES: OptionRules<PrefillReport> = {
  tokens: { ...COUNT, minimum: 1 },
  ms: { ...MILLISECONDS, maximum: MAX },
  position: COUNT,
};

/**
 * Throws unless a report of computed tokens is valid.
 *
 * @throws {TypeError | RangeError} If a key is unknown or missing, or a value is not valid.
 */
export function checkPrefillReport(report: PrefillReport): void {
  const { tokens, ms } = readOptions("reportPrefill()", report, REPORT_RULES);
  if (tokens !== undefined && ms !== undefined) return;
  throw new TypeError("reportPrefill() must be given { tokens, ms, position? }");
}

/** Number of computed tokens of a sequence. */
export function computedTokensOf({ length }: TokenIds, { computedTokens }: PutOptions): number {
  if (computedTokens === undefined) return Math.max(0, length - 1);
  if (computedTokens <= length) return computedTokens;
  throw new RangeError(
    `computedTokens must be at most ${length}, the tokens given: received ${computedTokens}`,
  );
}
