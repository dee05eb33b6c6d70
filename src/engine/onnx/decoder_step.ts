import { turnEventLoop } from "../../base/event_loop.ts";
import type { CachedModel } from "./cached_model.ts";
import { cutPastError } from "./decoder_signature.ts";
import { checkPast, disposePast, type Past, pastOf } from "./kv_memory.ts";
import type { OrtSession, OrtTensor } from "./ort.ts";
import { runInTurn } from "./run_in_turn.ts";

/** Result of {@linkcode computeStep}. */
export interface DecoderStep {
  /** K and V of all tokens so far. */
  readonly past: Past;
  /** Logits of the next token, if wanted. */
  readonly logits?: Float32Array;
  /** Time in milliseconds, without waiting for other runs of the runtime. */
  readonly ms: number;
}

/**
 * Computes tokens that follow a past and, if wanted, the logits of the next token.
 *
 * @throws {UnsupportedModelError} If the model does not return K and V of all tokens, so that
 * prefixes cannot be cached.
 */
export function computeStep(
  session: OrtSession,
  model: CachedModel,
  tokens: readonly number[],
  past: Past,
  wantsLogits: boolean,
): Promise<DecoderStep> {
  const { ort, memory, signature } = model;
  return runInTurn(ort, async () => {
    const startedAt = model.now();
    const present = signature.kv.flatMap(({ key, value }) => [key.present, value.present]);
    const fetches = wantsLogits ? [...present, "logits"] : present;
    const outputs = await session.run(feedsOf(model, tokens, past), fetches);
    if (memory.provider === "wasm") await turnEventLoop();
    const total = past.tokens + tokens.length;
    const next = pastOf(signature, total, (names) => outputs[names.present] as OrtTensor);
    try {
      const cut = next.layers.flatMap(({ key, value }) => [key, value])
        .find(({ dims }) => dims[2] !== total);
      if (cut !== undefined) throw cutPastError(signature, total, cut.dims[2]);
      checkPast(next, signature);
      if (!wantsLogits) return { past: next, ms: model.now() - startedAt };
      const logits = outputs["logits"] as OrtTensor;
      const row = (logits.dims.at(-2) ?? 1) - 1;
      const values = await memory.readRow(logits, row);
      return { past: next, logits: values, ms: model.now() - startedAt };
    } catch (error) {
      disposePast(next);
      throw error;
    } finally {
      outputs["logits"]?.dispose();
    }
  });
}

function feedsOf(
  { signature, tensors }: CachedModel,
  tokens: readonly number[],
  past: Past,
): Record<string, OrtTensor> {
  const { kv, kvHeads, headDim, ortType, inputs } = signature;
  const total = past.tokens + tokens.length;
  const dims = [1, tokens.length];
  const optional: Record<string, () => OrtTensor> = {
    "attention_mask": () => tensors.integers(Array(total).fill(1), [1, total]),
    "position_ids": () => tensors.integers(tokens.map((_, i) => past.tokens + i), dims),
    "num_logits_to_keep": () => tensors.integers([1], []),
  };
  const feeds: Record<string, OrtTensor> = { "input_ids": tensors.integers(tokens, dims) };
  for (const [name, create] of Object.entries(optional)) {
    if (inputs.has(name)) feeds[name] = create();
  }
  const nothing = (): OrtTensor => tensors.zeros(ortType, [1, kvHeads, 0, headDim]);
  for (const [layer, { key, value }] of kv.entries()) {
    const computed = past.layers[layer];
    feeds[key.past] = computed?.key ?? nothing();
    feeds[value.past] = computed?.value ?? nothing();
  }
  return feeds;
}
