/**
 * What is used of onnxruntime-web, by structure: the program that decodes brings the runtime, this
 * package imports none.
 */

/** A tensor of onnxruntime. */
export interface OrtTensor {
  /** Its dimensions. */
  readonly dims: readonly number[];
  /** Its element type. */
  readonly type: string;
  /** Its elements; only where they lie in host memory. */
  readonly data: unknown;
  /** Its buffer, which may be longer than its elements; only where they lie on the GPU. */
  readonly gpuBuffer: unknown;
  /** Its elements, wherever they lie; with `releaseData`, it is disposed afterwards. */
  getData(releaseData?: boolean): Promise<unknown>;
  /** Releases what it holds. */
  dispose(): void;
}

/** What a session knows about an input or output. */
export interface OrtValueMetadata {
  /** Its name. */
  readonly name: string;
  /** Whether it is a tensor. */
  readonly isTensor: boolean;
  /** Its element type, of a tensor. */
  readonly type?: string;
  /** Its dimensions, of a tensor; a name stands for one that is not fixed. */
  readonly shape?: readonly (number | string)[];
}

/** Tensors by name. */
export type OrtTensors = Readonly<Record<string, OrtTensor>>;

/** A session of onnxruntime. */
export interface OrtSession {
  /** The inputs of the model. */
  readonly inputMetadata: readonly OrtValueMetadata[];
  /** The outputs of the model. */
  readonly outputMetadata: readonly OrtValueMetadata[];
  /** Computes the outputs that are named. */
  run(feeds: OrtTensors, fetches: readonly string[]): Promise<OrtTensors>;
  /** Releases the session. */
  release(): Promise<void>;
}

/** The module `onnxruntime-web/webgpu`, or `onnxruntime-web` where only its wasm provider serves. */
export interface Ort {
  /** Sessions. */
  readonly InferenceSession: {
    create(model: Uint8Array, options: object): Promise<OrtSession>;
  };
  /** Tensors. */
  readonly Tensor: {
    new (type: never, data: never, dims: readonly number[]): OrtTensor;
    fromGpuBuffer(buffer: never, options: never): OrtTensor;
  };
  /** What it says about itself. */
  readonly env: { readonly versions: { readonly common: string; readonly web?: string } };
}

/** Makes tensors: the types of the runtime are narrower than what is known here. */
export class OrtTensorFactory {
  readonly #make: (type: string, data: unknown, dims: readonly number[]) => OrtTensor;
  readonly #wrap: (
    buffer: GPUBuffer,
    options: { dataType: string; dims: readonly number[]; dispose: () => void },
  ) => OrtTensor;

  /** Tensors of a runtime. */
  constructor({ Tensor }: Ort) {
    this.#make = (type, data, dims) => new Tensor(type as never, data as never, dims);
    this.#wrap = (buffer, options) => Tensor.fromGpuBuffer(buffer as never, options as never);
  }

  /** Integers of 64 bits. */
  integers(values: Iterable<number>, dims: readonly number[]): OrtTensor {
    return this.#make("int64", BigInt64Array.from([...values], BigInt), dims);
  }

  /** Elements in host memory. */
  ofHost(type: string, data: ArrayBufferView, dims: readonly number[]): OrtTensor {
    return this.#make(type, data, dims);
  }

  /** Elements in a buffer, which is destroyed with the tensor. */
  ofBuffer(type: string, buffer: GPUBuffer, dims: readonly number[]): OrtTensor {
    return this.#wrap(buffer, { dataType: type, dims, dispose: () => buffer.destroy() });
  }
}
