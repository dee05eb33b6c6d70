/** A conversation and its tokens. */
export interface Conversation {
  /** The rendered conversation including the last answer. */
  readonly text: string;
  /** The tokens read and written by the model. */
  readonly tokens: readonly number[];
}

/**
 * Remembers the token ids of answered conversations: tokenizing an answer again may give other
 * tokens than the model wrote, and then nothing after them is found in the cache.
 */
export class Conversations {
  readonly #known = new Map<string, Conversation>();
  readonly #tokenizer: string;
  readonly #maxConversations: number;

  /**
   * Keeps the `maxConversations` most recently used conversations.
   *
   * @param tokenizer Identifies the tokenizer: token ids of another one mean something else.
   */
  constructor(tokenizer: string, maxConversations = 256) {
    this.#tokenizer = tokenizer;
    this.#maxConversations = maxConversations;
  }

  /** Adds a conversation. The one that it continues is kept, for alternative answers. */
  note(salt: string, conversation: Conversation): void {
    this.#add(keyOf(salt, conversation.text), conversation);
  }

  #add(key: string, conversation: Conversation): void {
    this.#known.delete(key);
    this.#known.set(key, conversation);
    const [oldest] = this.#known.size > this.#maxConversations ? this.#known.keys() : [];
    if (oldest !== undefined) this.#known.delete(oldest);
  }

  /** The longest known conversation of a tenant that is a prefix of a rendered one. */
  find(salt: string, text: string): Conversation | undefined {
    let found: Conversation | undefined;
    for (const [key, conversation] of this.#known) {
      const { text: known } = conversation;
      const isLonger = known.length > (found?.text.length ?? 0);
      if (isLonger && text.startsWith(known) && key === keyOf(salt, known)) found = conversation;
    }
    return found;
  }

  /** All conversations, for writing to a file. */
  toJSON(): unknown {
    return { tokenizer: this.#tokenizer, conversations: [...this.#known] };
  }

  /** Restores the result of {@linkcode toJSON}, skipping invalid entries and other tokenizers. */
  restore(json: unknown): void {
    const { tokenizer, conversations } = (json ?? {}) as Record<string, unknown>;
    if (tokenizer !== this.#tokenizer) return;
    for (const entry of Array.isArray(conversations) ? conversations : []) {
      const [key, conversation] = Array.isArray(entry) ? entry : [];
      if (typeof key === "string" && isConversation(conversation)) {
        this.#add(key, conversation);
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
