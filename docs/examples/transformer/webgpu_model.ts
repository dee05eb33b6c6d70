import type { KvTensorPair, LanguageModel } from "./language_model.ts";
import { checkForward, checkModelConfig, kvDim, type ModelConfig, qkvDim } from "./model_config.ts";
import {
  attentionResultShader,
  attentionShader,
  embedShader,
  headShader,
  headsPerInvocation,
  MATMUL_COLUMNS,
  MATMUL_ROWS,
  matmulShader,
  normShader,
  scratchTexels,
  splitHeadsShader,
  WORKGROUP_LANES,
} from "./shaders.ts";
import { rotaryAngles } from "./rotary.ts";
import { createWeights } from "./weights.ts";

/** Rows computed per submit. */
const BLOCK_ROWS = 256;
/** The largest uniform buffer binding of a default device, in bytes. */
const WINDOW_BYTES = 65536;
/** Alignment of dynamic offsets of a default device, in bytes. */
const OFFSET_ALIGNMENT = 256;
/** Approximate interval between two calls of `onProgress`, in milliseconds. */
const PROGRESS_MS = 500;

/** A key/value pair of the WebGPU model, always GPU buffers. */
export interface GpuKvTensorPair extends KvTensorPair {
  readonly key: GPUBuffer;
  readonly value: GPUBuffer;
}

/** A {@linkcode LanguageModel} that keeps keys and values on a device. */
export interface WebGpuModel extends LanguageModel {
  readonly kv: readonly GpuKvTensorPair[];
}

/**
 * Creates the model on a device, for which the default limits suffice. Dispose of the model before
 * destroying the device. The K/V buffers have the usages STORAGE, UNIFORM, COPY_SRC and COPY_DST.
 *
 * @throws {RangeError} If the config is not valid.
 */
export function createWebGpuModel(device: GPUDevice, config: ModelConfig): WebGpuModel {
  checkModelConfig(config);
  return new GpuTransformer(device, config);
}

/** One dispatch: its bindings, and the number of workgroups for a block. */
interface Step {
  readonly pipeline: GPUComputePipeline;
  readonly bindings: GPUBindGroup;
  /** Workgroups in x and y for `rows` rows. */
  readonly workgroups: (rows: number) => readonly [number, number];
  /** Whether the step runs once for each window of keys, with dynamic offsets. */
  readonly eachWindow?: true;
}

class GpuTransformer implements WebGpuModel {
  readonly config: ModelConfig;
  readonly kv: readonly GpuKvTensorPair[];
  readonly #device: GPUDevice;
  readonly #owned: { destroy(): void }[] = [];
  readonly #windowTokens: number;
  readonly #block: GPUBuffer;
  readonly #tokens: GPUBuffer;
  readonly #logits: GPUBuffer;
  readonly #readback: GPUBuffer;
  readonly #rowSteps: readonly Step[];
  readonly #logitSteps: readonly Step[];
  #running = false;
  #disposed = false;

  constructor(device: GPUDevice, config: ModelConfig) {
    this.config = config;
    this.#device = device;
    // 64 tokens of any kvDim are a multiple of the offset alignment.
    const tokenBytes = kvDim(config) * 4;
    const contextTokens = Math.ceil(config.contextTokens / 64) * 64;
    this.#windowTokens = Math.min(Math.floor(WINDOW_BYTES / tokenBytes / 64) * 64, contextTokens);
    const windows = Math.ceil(contextTokens / this.#windowTokens);
    const kvBytes = windows * this.#windowTokens * tokenBytes;
    const { STORAGE, UNIFORM, COPY_SRC, COPY_DST, MAP_READ } = GPUBufferUsage;
    this.kv = Array.from({ length: config.layers }, () => ({
      key: this.#buffer(kvBytes, STORAGE | UNIFORM | COPY_SRC | COPY_DST),
      value: this.#buffer(kvBytes, STORAGE | UNIFORM | COPY_SRC | COPY_DST),
    }));
    this.#block = this.#buffer(16, UNIFORM | COPY_DST);
    this.#tokens = this.#buffer(config.contextTokens * 4, STORAGE | COPY_DST);
    this.#logits = this.#buffer(config.vocab * 4, STORAGE | COPY_SRC);
    this.#readback = this.#buffer(config.vocab * 4, MAP_READ | COPY_DST);
    const firstKeys = new Uint32Array(windows * OFFSET_ALIGNMENT / 4);
    for (let w = 0; w < windows; w++) {
      firstKeys[w * OFFSET_ALIGNMENT / 4] = w * this.#windowTokens;
    }
    const windowStarts = this.#buffer(firstKeys.byteLength, UNIFORM | COPY_DST);
    device.queue.writeBuffer(windowStarts, 0, firstKeys);
    [this.#rowSteps, this.#logitSteps] = this.#createSteps(windowStarts);
    this.#warmUp();
  }

  async forward(
    tokens: Uint32Array,
    start: number,
    onProgress?: (doneTokens: number, totalTokens: number) => void,
  ): Promise<Float32Array<ArrayBuffer>> {
    checkForward(this.config, tokens, start);
    if (this.#disposed) throw new Error("The model is disposed.");
    if (this.#running) throw new Error("The model runs another forward; await it first.");
    this.#running = true;
    try {
      this.#device.queue.writeBuffer(this.#tokens, start * 4, tokens.slice(start));
      const total = tokens.length - start;
      let queued = 0;
      let blocksToQueue = 1;
      let waited = performance.now();
      for (let done = 0; done < total;) {
        const rows = Math.min(BLOCK_ROWS, total - done);
        this.#submitBlock(start + done, rows, done + rows === total);
        done += rows;
        queued++;
        if (onProgress === undefined || queued < blocksToQueue || done === total) continue;
        // Submits return immediately; the time of the last blocks determines how many to queue next.
        await this.#device.queue.onSubmittedWorkDone();
        const now = performance.now();
        blocksToQueue = Math.max(1, Math.floor(queued * PROGRESS_MS / (now - waited)));
        waited = now;
        queued = 0;
        onProgress(done, total);
      }
      await this.#readback.mapAsync(GPUMapMode.READ);
      const logits = new Float32Array(this.#readback.getMappedRange().slice(0));
      this.#readback.unmap();
      onProgress?.(total, total);
      return logits;
    } finally {
      this.#running = false;
    }
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    for (const resource of this.#owned.splice(0)) resource.destroy();
  }

  /** Runs each shader once on zero rows, because drivers compile shaders when they first run. */
  #warmUp(): void {
    this.#submitBlock(0, 0, false);
  }

  #submitBlock(start: number, rows: number, last: boolean): void {
    this.#device.queue.writeBuffer(this.#block, 0, Uint32Array.of(start, rows));
    const encoder = this.#device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const step of this.#rowSteps) this.#dispatch(pass, step, start, rows);
    if (last) { for (const step of this.#logitSteps) this.#dispatch(pass, step, start, rows); }
    pass.end();
    if (last) {
      encoder.copyBufferToBuffer(this.#logits, 0, this.#readback, 0, this.config.vocab * 4);
    }
    this.#device.queue.submit([encoder.finish()]);
  }

  #dispatch(pass: GPUComputePassEncoder, step: Step, start: number, rows: number): void {
    const [x, y] = step.workgroups(Math.max(rows, 1));
    pass.setPipeline(step.pipeline);
    if (step.eachWindow === undefined) {
      pass.setBindGroup(0, step.bindings);
      pass.dispatchWorkgroups(x, y);
      return;
    }
    const windowBytes = this.#windowTokens * kvDim(this.config) * 4;
    for (let w = 0; w * this.#windowTokens < Math.max(start + rows, 1); w++) {
      const offset = w * windowBytes;
      pass.setBindGroup(0, step.bindings, [w * OFFSET_ALIGNMENT, offset, offset]);
      pass.dispatchWorkgroups(x, y);
    }
  }

  #createSteps(windowStarts: GPUBuffer): readonly [rows: Step[], logits: Step[]] {
    const { config } = this;
    const { layers, modelDim, heads, kvHeads, headDim, ffnDim, vocab } = config;
    const weights = createWeights(config);
    const width = scratchTexels(config);
    const stream = this.#scratch(width.stream);
    const middle = this.#scratch(width.stream);
    const normed = this.#scratch(width.stream);
    const projection = this.#scratch(width.projection);
    const query = this.#scratch(width.attention);
    const mixed = this.#scratch(width.attention);
    const hidden = this.#scratch(width.hidden);
    const sums = this.#buffer(
      BLOCK_ROWS * heads * (headDim + 4) * 4,
      GPUBufferUsage.STORAGE,
    );
    const angleValues = rotaryAngles(config);
    const angles = this.#buffer(
      angleValues.byteLength,
      GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST,
    );
    this.#device.queue.writeBuffer(angles, 0, angleValues);
    const block = { buffer: this.#block };

    const embed = this.#pipeline("embed", embedShader(config));
    const norm = this.#pipeline("norm", normShader(config));
    const project = this.#pipeline("project", matmulShader("plain", modelDim));
    const split = this.#pipeline("split heads", splitHeadsShader(config));
    const attend = this.#attentionPipeline();
    const attended = this.#pipeline("attention result", attentionResultShader(config));
    const output = this.#pipeline("output", matmulShader("residual", heads * headDim));
    const gateUp = this.#pipeline("gate and up", matmulShader("swiglu", modelDim));
    const down = this.#pipeline("down", matmulShader("residual", ffnDim));
    const head = this.#pipeline("head", headShader(config));

    const perRow = (parts: number): Step["workgroups"] => (rows) => [
      Math.ceil(rows / WORKGROUP_LANES),
      parts,
    ];
    const product = (columns: number): Step["workgroups"] => (rows) => [
      Math.ceil(columns / MATMUL_COLUMNS / WORKGROUP_LANES),
      Math.ceil(rows / MATMUL_ROWS),
    ];
    const windowBytes = this.#windowTokens * kvDim(config) * 4;
    const window = (buffer: GPUBuffer): GPUBufferBinding => ({ buffer, size: windowBytes });

    const rowSteps: Step[] = [
      this.#step(embed, perRow(1), [
        block,
        { buffer: this.#tokens },
        this.#matrix(weights.embedding, modelDim),
        stream,
      ]),
    ];
    for (let layer = 0; layer < layers; layer++) {
      const matrices = weights.layers[layer];
      const pair = this.kv[layer];
      if (matrices === undefined || pair === undefined) break;
      const key = { buffer: pair.key };
      const value = { buffer: pair.value };
      const first = { buffer: windowStarts, size: 16 };
      rowSteps.push(
        this.#step(norm, perRow(1), [stream, normed]),
        this.#step(project, product(qkvDim(config)), [
          normed,
          this.#matrix(matrices.qkv, qkvDim(config)),
          projection,
        ]),
        this.#step(split, perRow(heads + 2 * kvHeads), [
          block,
          projection,
          { buffer: angles },
          query,
          key,
          value,
        ]),
        {
          ...this.#step(attend, perRow(heads / headsPerInvocation(config)), [
            block,
            first,
            query,
            window(pair.key),
            window(pair.value),
            { buffer: sums },
          ]),
          eachWindow: true,
        },
        this.#step(attended, perRow(heads), [{ buffer: sums }, mixed]),
        this.#step(output, product(modelDim), [
          mixed,
          this.#matrix(matrices.output, modelDim),
          middle,
          stream,
        ]),
        this.#step(norm, perRow(1), [middle, normed]),
        this.#step(gateUp, product(2 * ffnDim), [
          normed,
          this.#matrix(matrices.gateUp, 2 * ffnDim),
          hidden,
        ]),
        this.#step(down, product(modelDim), [
          hidden,
          this.#matrix(matrices.down, modelDim),
          stream,
          middle,
        ]),
      );
    }
    const logitSteps = [
      this.#step(norm, perRow(1), [stream, normed]),
      this.#step(head, () => [Math.ceil(vocab / 4 / WORKGROUP_LANES), 1], [
        block,
        normed,
        this.#matrix(weights.head, vocab),
        { buffer: this.#logits },
      ]),
    ];
    return [rowSteps, logitSteps];
  }

  #step(
    pipeline: GPUComputePipeline,
    workgroups: Step["workgroups"],
    resources: readonly GPUBindingResource[],
  ): Step {
    const bindings = this.#device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: resources.map((resource, binding) => ({ binding, resource })),
    });
    return { pipeline, bindings, workgroups };
  }

  #pipeline(
    label: string,
    code: string,
    layout: GPUPipelineLayout | "auto" = "auto",
  ): GPUComputePipeline {
    const module = this.#device.createShaderModule({ label, code });
    return this.#device.createComputePipeline({
      label,
      layout,
      compute: { module, entryPoint: "main" },
    });
  }

  /** An explicit layout, because automatic layouts have no dynamic offsets, which attention uses. */
  #attentionPipeline(): GPUComputePipeline {
    const visibility = GPUShaderStage.COMPUTE;
    const uniform = (binding: number, hasDynamicOffset: boolean): GPUBindGroupLayoutEntry => ({
      binding,
      visibility,
      buffer: { type: "uniform", hasDynamicOffset },
    });
    const layout = this.#device.createBindGroupLayout({
      entries: [
        uniform(0, false),
        uniform(1, true),
        { binding: 2, visibility, texture: { sampleType: "unfilterable-float" } },
        uniform(3, true),
        uniform(4, true),
        { binding: 5, visibility, buffer: { type: "storage" } },
      ],
    });
    return this.#pipeline(
      "attention",
      attentionShader(this.config, this.#windowTokens),
      this.#device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    );
  }

  #buffer(size: number, usage: number): GPUBuffer {
    const buffer = this.#device.createBuffer({ size, usage });
    this.#owned.push(buffer);
    return buffer;
  }

  /** A texture for one block of rows, four floats per texel. */
  #scratch(texels: number): GPUTextureView {
    return this.#texture(
      texels,
      BLOCK_ROWS,
      GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.STORAGE_BINDING,
    ).createView();
  }

  /** A texture with a row-major matrix. */
  #matrix(values: Float32Array<ArrayBuffer>, columns: number): GPUTextureView {
    const size = { width: columns / 4, height: values.length / columns };
    const texture = this.#texture(
      size.width,
      size.height,
      GPUTextureUsage.TEXTURE_BINDING | GPUTextureUsage.COPY_DST,
    );
    this.#device.queue.writeTexture({ texture }, values, { bytesPerRow: columns * 4 }, size);
    return texture.createView();
  }

  #texture(width: number, height: number, usage: number): GPUTexture {
    const texture = this.#device.createTexture({
      size: { width, height },
      format: "rgba32float",
      usage,
    });
    this.#owned.push(texture);
    return texture;
  }
}
