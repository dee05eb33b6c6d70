/** Sampling parameters. */
export interface Sampling {
  /** 0 selects the most likely token; higher values increase randomness. */
  readonly temperature: number;
  /** Samples only from the most likely tokens with this total probability. */
  readonly topP: number;
}

/**
 * Samples the next token.
 *
 * @param logits One value per token of the vocabulary.
 * @param random A random number in [0, 1).
 */
export function sample(
  logits: Float32Array,
  { temperature, topP }: Sampling,
  random: () => number,
): number {
  const best = indexOfMax(logits);
  if (temperature === 0) return best;
  const top = logits[best] ?? 0;
  const weights = Array.from(logits, (score) => Math.exp((score - top) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const order = weights.map((_, token) => token)
    .sort((a, b) => (weights[b] ?? 0) - (weights[a] ?? 0));
  let kept = 0;
  let count = 0;
  while (count < order.length && kept < topP * total) kept += weights[order[count++] ?? 0] ?? 0;
  let rest = random() * kept;
  for (const token of order.slice(0, count)) {
    rest -= weights[token] ?? 0;
    if (rest < 0) return token;
  }
  return best;
}

function indexOfMax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) {
    if ((values[i] ?? 0) > (values[best] ?? 0)) best = i;
  }
  return best;
}
