import type { ModelConfig } from "./model_config.ts";

/**
 * The rotary angles of every position, `[contextTokens, headDim]` f32: `headDim / 2` cosines, then
 * as many sines. Float `i` of a head turns together with float `i + headDim / 2`.
 */
export function rotaryAngles(config: ModelConfig): Float32Array<ArrayBuffer> {
  const { contextTokens, headDim, ropeBase } = config;
  const half = headDim / 2;
  const angles = new Float32Array(contextTokens * headDim);
  for (let i = 0; i < half; i++) {
    const frequency = ropeBase ** (-i / half);
    for (let position = 0; position < contextTokens; position++) {
      angles[position * headDim + i] = Math.cos(position * frequency);
      angles[position * headDim + half + i] = Math.sin(position * frequency);
    }
  }
  return angles;
}
