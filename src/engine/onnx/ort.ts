/**
 * Structural types of the used parts of onnxruntime-web. The program provides the runtime; this
 * package does not import it.
 */

/** A tensor of onnxruntime. */
export interface OrtTensor {
  /** Dimensions. */
  readonly dims: readonly number[];
  /** Element type. */
  readonly type: string;
  /** Elements, for tensors in host memory. */
  readonly data: unknown;
  /** Buffer, for tensors on the GPU. It may be longer than the elements. */
  readonly gpuBuffer: unknown;
  /** Returns the elements from any memory. With `releaseData`, disposes of the tensor afterwards. */
  getData(releaseData?: boolean): Promise<unknown>;
  /** Releases its memory. */
  dispose(): void;
}

/** Metadata of an input or output of a session. */
export interface OrtValueMetadata {
  /** Name. */
  readonly name: string;
  /** Whether it is a tensor. */
  readonly isTensor: boolean;
  /** Element type of a tensor. */
  readonly type?: string;
  /** Dimensions of a tensor; a string names a dimension that is not fixed. */
  readonly shape?: readonly (number | string)[];
}

/** Tensors by name. */
export type OrtTensors = Readonly<Record<string, OrtTensor>>;

/** A session of onnxruntime. */
export interface OrtSession {
  /** Metadata of the inputs. */
  readonly inputMetadata: readonly OrtValueMetadata[];
  /** Metadata of the outputs. */
  readonly outputMetadata: readonly OrtValueMetadata[];
  /** Computes the named outputs. */
  run(feeds: OrtTensors, fetches: readonly string[]): Promise<OrtTensors>;
  /** Releases the session. */
  release(): Promise<void>;
}

/** The module `onnxruntime-web/webgpu`, or `onnxruntime-web` for the wasm provider only. */
export interface Ort {
  /** Creates sessions. */
  readonly InferenceSession: {
    create(model: Uint8Array, options: object): Promise<OrtSession>;
  };
  /** Creates tensors. */
  readonly Tensor: {
    new (type: never, data: never, dims: readonly number[]): OrtTensor;
    fromGpuBuffer(buffer: never, options: never): OrtTensor;
  };
  /** Its versions. */
  readonly env: { readonly versions: { readonly common: string; readonly web?: string } };
}

/** Creates tensors with dynamic element types, which the types of the runtime do not allow. */
export class OrtTensorFactory {
  readonly #make: (type: string, data: unknown, dims: readonly number[]) => OrtTensor;
  readonly #wrap: (
    buffer: GPUBuffer,
    options: { dataType: string; dims: readonly number[]; dispose: () => void },
  ) => OrtTensor;

  /** Creates tensors of the given runtime. */
  constructor({ Tensor }: Ort) {
    this.#make = (type, data, dims) => new Tensor(type as never, data as never, dims);
    this.#wrap = (buffer, options) => Tensor.fromGpuBuffer(buffer as never, options as never);
  }

  /** Creates a tensor of 64-bit integers. */
  integers(values: Iterable<number>, dims: readonly number[]): OrtTensor {
    return this.#make("int64", BigInt64Array.from([...values], BigInt), dims);
  }

  /** Creates a tensor in host memory. */
  ofHost(type: string, data: ArrayBufferView, dims: readonly number[]): OrtTensor {
    return this.#make(type, data, dims);
  }

  /** Creates a tensor of zeros in host memory, of 16-bit or 32-bit floats. */
  zeros(type: string, dims: readonly number[]): OrtTensor {
    const elements = dims.reduce((product, size) => product * size, 1);
    const data = type === "float16" ? new Float16Array(elements) : new Float32Array(elements);
    return this.ofHost(type, data, dims);
  }

  /** Creates a tensor on a GPU buffer, which is destroyed with the tensor. */
  ofBuffer(type: string, buffer: GPUBuffer, dims: readonly number[]): OrtTensor {
    return this.#wrap(buffer, { dataType: type, dims, dispose: () => buffer.destroy() });
  }
}
