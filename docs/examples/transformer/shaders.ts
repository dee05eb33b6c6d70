import { ATTENTION_GAIN, type ModelConfig, NORM_EPSILON, qkvDim } from "./model_config.ts";
import { GATE_GROUP } from "./weights.ts";

// Two facts about software Vulkan (Mesa's lavapipe, which turns the invocations of a workgroup into
// SIMD lanes) shape these shaders. A load from a storage buffer costs it a loop over the lanes; a
// texel load brings four floats at once, and a load from a uniform buffer that all lanes share is
// one scalar load. So matrices and activations are rgba32float textures, K and V are read through
// windows of 64 KiB of uniform buffer. Both are also fine on a real GPU.
//
// All sums of a row have a fixed order: the inner dimension of a matrix from 0 up, keys from
// position 0 up. Rows never share a sum.

/** Invocations of a workgroup in every shader. */
export const WORKGROUP_LANES = 8;
/** Rows that one invocation of a matrix product computes. */
export const MATMUL_ROWS = 8;
/** Columns that one invocation of a matrix product computes. */
export const MATMUL_COLUMNS = 2 * GATE_GROUP;

const COLUMN_TEXELS = MATMUL_COLUMNS / 4;

/** The uniform every shader with a `block` binding reads, in this order, as u32. */
const BLOCK = `
struct Block {
  start: u32, // position of the first row
  rows: u32,  // rows in use; a shader may compute up to 7 more, which are ignored
}`;

/** Post-processing of a matrix product. */
export type MatmulKind = "plain" | "residual" | "swiglu";

/** Copies the embedding of each row's token: `stream[row] = embedding[tokens[start + row]]`. */
export function embedShader(config: ModelConfig): string {
  return `${BLOCK}
@group(0) @binding(0) var<uniform> block: Block;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var embedding: texture_2d<f32>;
@group(0) @binding(3) var stream: texture_storage_2d<rgba32float, write>;

@compute @workgroup_size(${WORKGROUP_LANES})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  if (row >= block.rows) { return; }
  let token = tokens[block.start + row];
  for (var i = 0u; i < ${config.modelDim / 4}u; i++) {
    textureStore(stream, vec2u(i, row), textureLoad(embedding, vec2u(i, token), 0));
  }
}`;
}

/** RMSNorm of each row, one invocation per row. */
export function normShader(config: ModelConfig): string {
  const texels = config.modelDim / 4;
  return `
@group(0) @binding(0) var stream: texture_2d<f32>;
@group(0) @binding(1) var normed: texture_storage_2d<rgba32float, write>;

@compute @workgroup_size(${WORKGROUP_LANES})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  var squares = vec4f();
  for (var i = 0u; i < ${texels}u; i++) {
    let x = textureLoad(stream, vec2u(i, row), 0);
    squares = fma(x, x, squares);
  }
  let sum = (squares.x + squares.y) + (squares.z + squares.w);
  let scale = inverseSqrt(sum / ${config.modelDim}.0 + ${NORM_EPSILON});
  for (var i = 0u; i < ${texels}u; i++) {
    textureStore(normed, vec2u(i, row), textureLoad(stream, vec2u(i, row), 0) * scale);
  }
}`;
}

/**
 * `result[row] = input[row] * weights`, with post-processing by `kind`: "residual" adds
 * `residual[row]`, "swiglu" multiplies each up column by the SiLU of its gate column.
 */
export function matmulShader(kind: MatmulKind, inputs: number): string {
  const rows = range(MATMUL_ROWS);
  const columns = range(COLUMN_TEXELS);
  const store = (row: number, column: number): string => {
    if (kind === "swiglu") {
      const up = column + COLUMN_TEXELS / 2;
      return column >= COLUMN_TEXELS / 2
        ? ""
        : `textureStore(result, vec2u(column / 2u + ${column}u, row + ${row}u),
      s${row}_${column} / (1.0 + exp(-s${row}_${column})) * s${row}_${up});`;
    }
    const at = `vec2u(column + ${column}u, row + ${row}u)`;
    const sum = kind === "residual"
      ? `textureLoad(residual, ${at}, 0) + s${row}_${column}`
      : `s${row}_${column}`;
    return `textureStore(result, ${at}, ${sum});`;
  };
  return `
@group(0) @binding(0) var input: texture_2d<f32>;
@group(0) @binding(1) var weights: texture_2d<f32>;
@group(0) @binding(2) var result: texture_storage_2d<rgba32float, write>;
${kind === "residual" ? "@group(0) @binding(3) var residual: texture_2d<f32>;" : ""}

@compute @workgroup_size(${WORKGROUP_LANES})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let column = id.x * ${COLUMN_TEXELS}u;
  let row = id.y * ${MATMUL_ROWS}u;
  ${lines(rows, (r) => lines(columns, (c) => `var s${r}_${c} = vec4f();`))}
  for (var k = 0u; k < ${inputs / 4}u; k++) {
    ${
    lines(range(4), (i) =>
      lines(
        columns,
        (c) => `let w${i}_${c} = textureLoad(weights, vec2u(column + ${c}u, k * 4u + ${i}u), 0);`,
      ))
  }
    ${
    lines(rows, (r) =>
      `let x${r} = textureLoad(input, vec2u(k, row + ${r}u), 0);
    ${
        lines(
          range(4),
          (i) =>
            lines(columns, (c) => `s${r}_${c} = fma(vec4f(x${r}[${i}]), w${i}_${c}, s${r}_${c});`),
        )
      }`)
  }
  }
  ${lines(rows, (r) => lines(columns, (c) => store(r, c)))}
}`;
}

/**
 * Splits the fused projection into heads, one invocation per row and head: queries and keys get
 * their RMSNorm and rotary position, keys and values go to the cache. `angles` holds per position
 * the cosines, then the sines of `headDim / 2` angles.
 */
export function splitHeadsShader(config: ModelConfig): string {
  const { heads, kvHeads, headDim } = config;
  const texels = headDim / 4;
  const half = texels / 2;
  // Attention computes exp2 of the scores, which is cheaper than exp.
  const queryScale = ATTENTION_GAIN * Math.LOG2E / Math.sqrt(headDim);
  return `${BLOCK}
@group(0) @binding(0) var<uniform> block: Block;
@group(0) @binding(1) var projection: texture_2d<f32>;
@group(0) @binding(2) var<storage, read> angles: array<vec4f>;
@group(0) @binding(3) var query: texture_storage_2d<rgba32float, write>;
@group(0) @binding(4) var<storage, read_write> keys: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> values: array<vec4f>;

@compute @workgroup_size(${WORKGROUP_LANES})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  let head = id.y;
  if (row >= block.rows) { return; }
  let position = block.start + row;
  let source = head * ${texels}u;
  if (head >= ${heads + kvHeads}u) {
    let slot = position * ${kvHeads * texels}u + source - ${(heads + kvHeads) * texels}u;
    for (var i = 0u; i < ${texels}u; i++) {
      values[slot + i] = textureLoad(projection, vec2u(source + i, row), 0);
    }
    return;
  }
  var squares = vec4f();
  for (var i = 0u; i < ${texels}u; i++) {
    let x = textureLoad(projection, vec2u(source + i, row), 0);
    squares = fma(x, x, squares);
  }
  let sum = (squares.x + squares.y) + (squares.z + squares.w);
  let scale = inverseSqrt(sum / ${headDim}.0 + ${NORM_EPSILON});
  for (var i = 0u; i < ${half}u; i++) {
    let low = textureLoad(projection, vec2u(source + i, row), 0) * scale;
    let high = textureLoad(projection, vec2u(source + i + ${half}u, row), 0) * scale;
    let cosine = angles[position * ${texels}u + i];
    let sine = angles[position * ${texels}u + i + ${half}u];
    let turnedLow = low * cosine - high * sine;
    let turnedHigh = high * cosine + low * sine;
    if (head < ${heads}u) {
      textureStore(query, vec2u(source + i, row), turnedLow * ${queryScale});
      textureStore(query, vec2u(source + i + ${half}u, row), turnedHigh * ${queryScale});
    } else {
      let slot = position * ${kvHeads * texels}u + source - ${heads * texels}u + i;
      keys[slot] = turnedLow;
      keys[slot + ${half}u] = turnedHigh;
    }
  }
}`;
}

/**
 * Attention of every row over the keys of one window of `windowTokens`, added to `sums`. One
 * invocation has one row and up to four query heads that share a K/V head. The first window
 * starts the sums at 0. Masked keys get the exact weight 0, so they do not change any bit of a sum,
 * and windows without visible keys may be skipped.
 */
export function attentionShader(config: ModelConfig, windowTokens: number): string {
  const { heads, kvHeads, headDim } = config;
  const texels = headDim / 4;
  const group = heads / kvHeads;
  const share = headsPerInvocation(config);
  const shared = range(share);
  const parts = range(texels);
  const words = windowTokens * kvHeads * texels;
  return `${BLOCK}
@group(0) @binding(0) var<uniform> block: Block;
@group(0) @binding(1) var<uniform> first: vec4u; // x: position of the window's first key
@group(0) @binding(2) var query: texture_2d<f32>;
@group(0) @binding(3) var<uniform> keys: array<vec4f, ${words}>;
@group(0) @binding(4) var<uniform> values: array<vec4f, ${words}>;
@group(0) @binding(5) var<storage, read_write> sums: array<vec4f>;

@compute @workgroup_size(${WORKGROUP_LANES})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  let position = block.start + row;
  let head = id.y * ${share}u;
  let kvHead = head / ${group}u;
  let base = (row * ${heads}u + head) * ${texels + 1}u;
  let fresh = first.x == 0u;
  ${
    lines(shared, (h) =>
      `${
        lines(parts, (d) =>
          `let q${h}_${d} = textureLoad(query, vec2u((head + ${h}u) * ${texels}u + ${d}u, row), 0);
  var a${h}_${d} = select(sums[base + ${h * (texels + 1) + d}u], vec4f(), fresh);`)
      }
  var total${h} = select(sums[base + ${h * (texels + 1) + texels}u].x, 0.0, fresh);`)
  }
  let count = min(${windowTokens}u, block.start + block.rows - first.x);
  for (var j = 0u; j < count; j++) {
    let at = (j * ${kvHeads}u + kvHead) * ${texels}u;
    let visible = first.x + j <= position;
    ${lines(shared, (h) => `var s${h} = vec4f();`)}
    ${
    lines(parts, (d) =>
      `let k${d} = keys[at + ${d}u];
    ${lines(shared, (h) => `s${h} = fma(q${h}_${d}, k${d}, s${h});`)}`)
  }
    ${
    lines(shared, (h) =>
      `let p${h} = select(0.0, exp2((s${h}.x + s${h}.y) + (s${h}.z + s${h}.w)), visible);
    total${h} += p${h};`)
  }
    ${
    lines(parts, (d) =>
      `let v${d} = values[at + ${d}u];
    ${lines(shared, (h) => `a${h}_${d} = fma(vec4f(p${h}), v${d}, a${h}_${d});`)}`)
  }
  }
  ${
    lines(shared, (h) =>
      `${
        lines(parts, (d) => `sums[base + ${h * (texels + 1) + d}u] = a${h}_${d};`)
      }
  sums[base + ${h * (texels + 1) + texels}u] = vec4f(total${h});`)
  }
}`;
}

/** Query heads that one invocation of the attention shader computes. */
export function headsPerInvocation(config: ModelConfig): number {
  const group = config.heads / config.kvHeads;
  const limit = Math.max(1, Math.floor(128 / config.headDim));
  for (let share = Math.min(group, limit); share > 1; share--) {
    if (group % share === 0) return share;
  }
  return 1;
}

/** Divides the attention sums by their weights, one invocation per row and head. */
export function attentionResultShader(config: ModelConfig): string {
  const texels = config.headDim / 4;
  return `
@group(0) @binding(0) var<storage, read> sums: array<vec4f>;
@group(0) @binding(1) var mixed: texture_storage_2d<rgba32float, write>;

@compute @workgroup_size(${WORKGROUP_LANES})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  let head = id.y;
  let base = (row * ${config.heads}u + head) * ${texels + 1}u;
  let scale = 1.0 / sums[base + ${texels}u].x;
  for (var i = 0u; i < ${texels}u; i++) {
    textureStore(mixed, vec2u(head * ${texels}u + i, row), sums[base + i] * scale);
  }
}`;
}

/** The logits of the block's last row, four per invocation. */
export function headShader(config: ModelConfig): string {
  return `${BLOCK}
@group(0) @binding(0) var<uniform> block: Block;
@group(0) @binding(1) var normed: texture_2d<f32>;
@group(0) @binding(2) var weights: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> logits: array<vec4f>;

@compute @workgroup_size(${WORKGROUP_LANES})
fn main(@builtin(global_invocation_id) id: vec3u) {
  var sum = vec4f();
  for (var k = 0u; k < ${config.modelDim / 4}u; k++) {
    let x = textureLoad(normed, vec2u(k, block.rows - 1u), 0);
    ${
    lines(
      range(4),
      (i) =>
        `sum = fma(vec4f(x[${i}]), textureLoad(weights, vec2u(id.x, k * 4u + ${i}u), 0), sum);`,
    )
  }
  }
  if (id.x < ${config.vocab / 4}u) { logits[id.x] = sum; }
}`;
}

/** Width in texels of each activation texture. */
export function scratchTexels(config: ModelConfig): Record<
  "stream" | "projection" | "attention" | "hidden",
  number
> {
  return {
    stream: config.modelDim / 4,
    projection: qkvDim(config) / 4,
    attention: config.heads * config.headDim / 4,
    hidden: config.ffnDim / 4,
  };
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

function lines(items: readonly number[], line: (item: number) => string): string {
  return items.map(line).join("\n    ");
}
