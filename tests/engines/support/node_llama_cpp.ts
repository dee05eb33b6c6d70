/**
 * What the documentation uses of node-llama-cpp 3.21, written down by hand: its packages weigh
 * 344 MB.
 */

/** A token id. */
export type Token = number & { readonly __token: never };

/** State of one sequence. */
export interface LlamaContextSequence {
  readonly contextTokens: Token[];
  saveStateToFile(filePath: string): Promise<{ fileSize: number }>;
  loadStateFromFile(filePath: string, acceptRisk: { acceptRisk: true }): Promise<void>;
}

/** Room for sequences. */
export interface LlamaContext {
  getSequence(): LlamaContextSequence;
}

/** Text to token ids. */
export interface Tokenizer {
  (text: string): Token[];
}

/** A model. */
export interface LlamaModel {
  readonly tokenizer: Tokenizer;
  createContext(options: { contextSize: number }): Promise<LlamaContext>;
}

/** The engine. */
export interface Llama {
  loadModel(options: { modelPath: string }): Promise<LlamaModel>;
}

/** A message of a conversation. */
export type ChatHistoryItem =
  | { type: "system" | "user"; text: string }
  | { type: "model"; response: string[] };

/** Text with special tokens. */
export interface LlamaText {
  tokenize(tokenizer: Tokenizer): Token[];
}

/** A conversation. */
export declare class LlamaChatSession {
  constructor(options: { contextSequence: LlamaContextSequence });
  readonly chatWrapper: {
    generateContextState(options: { chatHistory: ChatHistoryItem[] }): { contextText: LlamaText };
  };
  getChatHistory(): ChatHistoryItem[];
  setChatHistory(chatHistory: ChatHistoryItem[]): void;
  prompt(text: string, options: { maxTokens: number; temperature: number }): Promise<string>;
}

export declare function getLlama(options: { gpu: false; maxThreads: number }): Promise<Llama>;
