/** What a conversation is as tokens. */
export interface Conversation {
  /** The rendered conversation with its last answer. */
  readonly text: string;
  /** The tokens that the model has read and written. */
  readonly tokens: readonly number[];
}

/**
 * The token ids of conversations that have ended with an answer: to tokenize an answer again may
 * give other tokens than the model wrote, and then nothing behind them is found in the cache.
 */
export class Conversations {
  readonly #known = new Map<string, Conversation>();
  readonly #most: number;

  /** Knows the `most` conversations that were used last. */
  constructor(most = 256) {
    this.#most = most;
  }

  /** Notes a conversation; the one that it continues stays, for another answer. */
  note(salt: string, conversation: Conversation): void {
    const key = keyOf(salt, conversation.text);
    this.#known.delete(key);
    this.#known.set(key, conversation);
    const [oldest] = this.#known.size > this.#most ? this.#known.keys() : [];
    if (oldest !== undefined) this.#known.delete(oldest);
  }

  /** The longest known conversation of a tenant with which a rendered one begins. */
  find(salt: string, text: string): Conversation | undefined {
    let found: Conversation | undefined;
    for (const [key, conversation] of this.#known) {
      const { text: known } = conversation;
      const isLonger = known.length > (found?.text.length ?? 0);
      if (isLonger && text.startsWith(known) && key === keyOf(salt, known)) found = conversation;
    }
    return found;
  }

  /** All of them, to be written to a file. */
  toJSON(): unknown {
    return [...this.#known];
  }

  /** Takes back what {@linkcode toJSON} gave; what is no conversation is left out. */
  restore(json: unknown): void {
    for (const entry of Array.isArray(json) ? json : []) {
      const [key, conversation] = Array.isArray(entry) ? entry : [];
      if (typeof key === "string" && isConversation(conversation)) {
        this.#known.set(key, conversation);
      }
    }
  }
}

function keyOf(salt: string, text: string): string {
  return JSON.stringify([salt, text]);
}

function isConversation(value: unknown): value is Conversation {
  if (typeof value !== "object" || value === null) return false;
  const { text, tokens } = value as Partial<Conversation>;
  return typeof text === "string" && Array.isArray(tokens) &&
    tokens.every((token) => Number.isSafeInteger(token) && token >= 0);
}
