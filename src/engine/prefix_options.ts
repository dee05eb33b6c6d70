import type { PositionedKey, TokenIds } from "../keys/chunk_hash.ts";
import type { KvLayout } from "../keys/kv_layout.ts";
import { checkNotNullish, type OptionRules, readOptions, STRING } from "../runtime/options.ts";
import type { KvGroup } from "./kv_groups.ts";

/** What a {@linkcode PrefixCache} caches for. */
export interface PrefixCacheOptions {
  /** The model. */
  readonly model: {
    /** Its name: at most 256 UTF-8 bytes without `@`, NUL and control characters. */
    readonly name: string;
    /** Which weights: a commit, a version, a digest. @default {""} */
    readonly revision?: string;
  };
  /** Layout of one chunk of its KV; for models with several kinds of attention, one group each. */
  readonly layout: KvLayout | readonly KvGroup[];
  /** Which part of the model's KV this process has. @default {0} */
  readonly kvRank?: number;
  /**
   * Time that a match may take: `baseMs` and `perTokenMs` for each token of the prompt. Set
   * `perTokenMs` below what a prefill takes, and no match is slower than computing.
   *
   * @default {{ baseMs: 2000, perTokenMs: 0.1 }}
   */
  readonly deadline?: { readonly baseMs?: number; readonly perTokenMs?: number };
}

/** What decides, beside its tokens, which KV a prompt has. */
export interface PromptOptions {
  /**
   * Isolates tenants: what is stored under one salt is never found under another. Any text of at
   * most 128 characters without control characters, such as an e-mail address. Left out, the prompt
   * is shared with all others without a salt; `undefined` and `null` are errors.
   *
   * @default {""}
   */
  readonly salt?: string;
  /**
   * Whatever else of this request changes K and V. A string changes that of all tokens (a LoRA
   * adapter): prompts with different ones share nothing. With a position it changes that from this
   * token on (the digest of an image, at its first placeholder): what comes before is shared, up to
   * the chunk that has the token.
   *
   * @default {""}
   */
  readonly extraKey?: string | readonly PositionedKey[];
}

/** Options of {@linkcode PrefixCache.match}. */
export interface MatchOptions extends PromptOptions {
  /**
   * After this time the hit is what has arrived.
   *
   * @default {by `deadline` of the prefix cache}
   */
  readonly deadlineMs?: number;
  /** Gives up: the call rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Options of {@linkcode PrefixCache.put}. */
export interface PutOptions extends PromptOptions {
  /**
   * How many tokens, from the first one on, have their K and V in the tensors. A decoder computes
   * those of a token when it computes the next one, so that the token sampled last has none yet;
   * after a prefill, `tokens.length` stores the last chunk of a prompt that fills it.
   *
   * @default {tokens.length - 1}
   */
  readonly computedTokens?: number;
}

/** Left out, these are shared by all. */
const IDENTITY_KEYS = ["salt", "extraKey"];

const PROMPT_RULES: OptionRules<PromptOptions> = {
  salt: STRING,
  extraKey: {
    type: "value",
    accepts: (value) => typeof value === "string" || Array.isArray(value),
    expected: "a string or an array of { atToken, key }",
  },
};
/** What bounds a match. */
export const LIMIT_RULES: OptionRules<Pick<MatchOptions, "deadlineMs" | "signal">> = {
  deadlineMs: { type: "number", minimum: 0 },
  signal: {
    type: "value",
    accepts: (value) => value instanceof AbortSignal,
    expected: "an AbortSignal",
  },
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
  // What it must be is known to those who read it.
  layout: { type: "value", accepts: () => true, expected: "a layout" },
  kvRank: { type: "number", minimum: 0, maximum: 0xffffffff, multipleOf: 1, default: 0 },
  deadline: {
    type: "object",
    rules: {
      baseMs: { ...MILLISECONDS, default: 2_000 },
      perTokenMs: { ...MILLISECONDS, default: 0.1 },
    },
  },
};

/**
 * Options of a {@linkcode PrefixCache} that are checked but for the layout, with defaults filled
 * in.
 *
 * @throws {TypeError | RangeError} If a key is unknown, a value is not valid, or one that tells its
 * objects from others was lost on the way.
 */
export function readCacheOptions(options: PrefixCacheOptions): {
  readonly model: PrefixCacheOptions["model"];
  readonly layout: PrefixCacheOptions["layout"];
  readonly kvRank: number;
  readonly deadline: { readonly baseMs: number; readonly perTokenMs: number };
} {
  const what = "PrefixCache options";
  const { model, layout, kvRank, deadline } = readOptions(what, options, CACHE_RULES);
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
  };
}

/**
 * Throws unless the options of a call for a prompt are valid.
 *
 * @throws {TypeError | RangeError} If a key is unknown, a value is not valid, or one that tells
 * prompts apart was lost on the way.
 */
export function checkPromptOptions(call: keyof typeof RULES, options: PromptOptions): void {
  const what = `${call}() options`;
  readOptions(what, options, RULES[call]);
  checkNotNullish(what, options, IDENTITY_KEYS);
}

/** How many tokens of a sequence are computed. */
export function computedTokensOf({ length }: TokenIds, { computedTokens }: PutOptions): number {
  if (computedTokens === undefined) return Math.max(0, length - 1);
  if (computedTokens <= length) return computedTokens;
  throw new RangeError(
    `computedTokens must be at most ${length}, the tokens given: received ${computedTokens}`,
  );
}
