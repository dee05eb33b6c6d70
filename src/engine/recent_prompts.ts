import type { PositionedKey, TokenIds } from "../keys/chunk_hash.ts";
import type { PromptOptions } from "./prefix_options.ts";

/** Maximum bytes of the prompts that are kept for one prefix cache. */
const MAX_BYTES = 2 ** 20;
/** What a prompt occupies besides its tokens, about. */
const BYTES_PER_PROMPT = 256;

/** How a prompt relates to the recent one that it has most tokens in common with. */
export interface PromptDifference {
  /**
   * Index of the first token that differs, or from which on `extraKey` differs; the length of the
   * shorter prompt if one begins with the other.
   */
  readonly token: number;
  /** Tokens of the recent prompt. */
  readonly promptTokens: number;
  /** Milliseconds since that prompt was put. */
  readonly agoMs: number;
}

/** A prompt that was put. */
interface RecentPrompt {
  readonly salt: string;
  readonly extraKeys: readonly PositionedKey[];
  readonly tokens: Uint32Array;
  readonly at: number;
  readonly bytes: number;
}

/** The prompts that were put last, to say where one that misses differs from them. */
export class RecentPrompts {
  readonly #maxPrompts: number;
  readonly #now: () => number;
  /** Latest first. */
  #prompts: readonly RecentPrompt[] = [];

  /** Keeps at most `maxPrompts` prompts and 1 MiB. */
  constructor(maxPrompts: number, now: () => number) {
    this.#maxPrompts = maxPrompts;
    this.#now = now;
  }

  /** Keeps a prompt. It replaces those that it continues. */
  note(prompt: TokenIds, options: PromptOptions): void {
    if (this.#maxPrompts === 0 || prompt.length === 0) return;
    const tokens = tokensOf(prompt);
    const { salt = "" } = options;
    const extraKeys = extraKeysOf(options);
    const others = this.#prompts.filter((other) =>
      other.salt !== salt || commonTokens(other, tokens, extraKeys) < other.tokens.length
    );
    const keyBytes = extraKeys.reduce((sum, { key }) => sum + BYTES_PER_PROMPT + 2 * key.length, 0);
    const bytes = tokens.byteLength + BYTES_PER_PROMPT + 2 * salt.length + keyBytes;
    let left = MAX_BYTES;
    this.#prompts = [{ salt, extraKeys, tokens, at: this.#now(), bytes }, ...others]
      .slice(0, this.#maxPrompts)
      .filter((prompt) => (left -= prompt.bytes) >= 0);
  }

  /** Compares a prompt with the recent ones of the same salt. */
  nearest(prompt: TokenIds, options: PromptOptions): PromptDifference | undefined {
    const { salt = "" } = options;
    const mates = this.#prompts.filter((other) => other.salt === salt);
    if (mates.length === 0) return undefined;
    const tokens = tokensOf(prompt);
    const extraKeys = extraKeysOf(options);
    let nearest: PromptDifference | undefined;
    for (const other of mates) {
      const token = commonTokens(other, tokens, extraKeys);
      if (nearest !== undefined && token <= nearest.token) continue;
      const agoMs = Math.max(0, this.#now() - other.at);
      nearest = { token, promptTokens: other.tokens.length, agoMs };
    }
    return nearest;
  }
}

function tokensOf(prompt: TokenIds): Uint32Array {
  return prompt instanceof Uint32Array ? prompt.slice() : Uint32Array.from(prompt, Number);
}

function extraKeysOf({ extraKey = "" }: PromptOptions): readonly PositionedKey[] {
  if (typeof extraKey !== "string") return extraKey.map(({ atToken, key }) => ({ atToken, key }));
  return extraKey === "" ? [] : [{ atToken: 0, key: extraKey }];
}

/** Number of leading tokens that agree, extra keys included. */
function commonTokens(
  other: RecentPrompt,
  tokens: Uint32Array,
  extraKeys: readonly PositionedKey[],
): number {
  let end = Math.min(other.tokens.length, tokens.length);
  for (let i = 0; i < Math.max(extraKeys.length, other.extraKeys.length); i++) {
    const [ours, theirs] = [extraKeys[i], other.extraKeys[i]];
    if (ours?.atToken === theirs?.atToken && ours?.key === theirs?.key) continue;
    end = Math.min(end, ours?.atToken ?? Infinity, theirs?.atToken ?? Infinity);
    break;
  }
  let common = 0;
  while (common < end && other.tokens[common] === tokens[common]) common++;
  return common;
}
