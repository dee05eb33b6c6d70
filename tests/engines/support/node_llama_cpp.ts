/**
 * What the documentation uses of node-llama-cpp 3.21, written down by hand: its packages weigh
 * 344 MB.
 */

/** A token id. */
export type Token = number & { readonly __token: never };

/** State of one sequence. */
export interface LlamaContextSequence {
  readonly nextTokenIndex: number;
  readonly contextTokens: Token[];
  adaptStateToTokens(tokens: Token[], allowShift?: boolean): Promise<void>;
  evaluateWithoutGeneratingNewTokens(tokens: Token[]): Promise<void>;
  saveStateToFile(filePath: string): Promise<{ fileSize: number }>;
  loadStateFromFile(filePath: string, acceptRisk: { acceptRisk: true }): Promise<void>;
}

/** Room for sequences. */
export interface LlamaContext {
  getSequence(): LlamaContextSequence;
}

/** A model. */
export interface LlamaModel {
  tokenize(text: string): Token[];
  createContext(): Promise<LlamaContext>;
}

/** The engine. */
export interface Llama {
  loadModel(options: { modelPath: string }): Promise<LlamaModel>;
}

export declare function getLlama(): Promise<Llama>;
