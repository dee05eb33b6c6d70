import { type CopyDispatch, type CopyPlan, ENTRY_BYTES } from "./copy_plan.ts";
import { createGpuBuffer } from "./gpu_buffer.ts";
import { catchGpuErrors } from "./gpu_errors.ts";
import type { MemoryRange } from "./memory_device.ts";

/** Threads per workgroup: the default limit of devices. */
const WORKGROUP_SIZE = 256;
const MIN_TABLE_BYTES = 64 * 1024;
/** Types of the bindings: the table, the source and the destination. */
const BINDINGS = ["read-only-storage", "read-only-storage", "storage"] as const;

/** Shader that copies tiles, one per workgroup, whose locations are in a table. */
function shaderOf(unit: "u32" | "vec4<u32>"): string {
  return `
@group(0) @binding(0) var<storage, read> table: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> source: array<${unit}>;
@group(0) @binding(2) var<storage, read_write> destination: array<${unit}>;

@compute @workgroup_size(${WORKGROUP_SIZE})
fn main(
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(num_workgroups) workgroups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let index = workgroup.x + workgroup.y * workgroups.x;
  if (index >= arrayLength(&table)) {
    return;
  }
  let tile = table[index];
  for (var i = thread; i < tile.z; i += ${WORKGROUP_SIZE}u) {
    destination[tile.y + i] = source[tile.x + i];
  }
}`;
}

/** Runs many copies between two buffers in one dispatch. */
export class CopyKernel implements Disposable {
  readonly #gpuDevice: GPUDevice;
  readonly #layout: GPUBindGroupLayout;
  readonly #pipelines: Readonly<Record<CopyDispatch["unitBytes"], GPUComputePipeline>>;
  /**
   * One table suffices, because the queue writes it after the dispatches of earlier calls. It grows
   * to the size of the largest plan, which is bounded.
   */
  #table: GPUBuffer | undefined;

  private constructor(
    gpuDevice: GPUDevice,
    layout: GPUBindGroupLayout,
    pipelines: Readonly<Record<CopyDispatch["unitBytes"], GPUComputePipeline>>,
  ) {
    this.#gpuDevice = gpuDevice;
    this.#layout = layout;
    this.#pipelines = pipelines;
  }

  /** Compiles the shaders; returns `null` if the device rejects them. */
  static async create(gpuDevice: GPUDevice): Promise<CopyKernel | null> {
    try {
      // The promises of the pipelines reject if any part is invalid.
      const { result } = catchGpuErrors(gpuDevice, () => {
        const layout = gpuDevice.createBindGroupLayout({
          label: "kvtier copy",
          entries: BINDINGS.map((type, binding) => {
            return { binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } };
          }),
        });
        const compile = (unit: Parameters<typeof shaderOf>[0]): Promise<GPUComputePipeline> =>
          gpuDevice.createComputePipelineAsync({
            label: "kvtier copy",
            layout: gpuDevice.createPipelineLayout({ bindGroupLayouts: [layout] }),
            compute: { module: gpuDevice.createShaderModule({ code: shaderOf(unit) }) },
          });
        return { layout, pipelines: Promise.all([compile("u32"), compile("vec4<u32>")]) };
      });
      const [words, vectors] = await result.pipelines;
      return new CopyKernel(gpuDevice, result.layout, { 4: words, 16: vectors });
    } catch {
      return null;
    }
  }

  /**
   * Records the dispatches of a plan in one pass. The encoder must be submitted before the next plan
   * is recorded.
   */
  record(encoder: GPUCommandEncoder, { dispatches, table }: CopyPlan): void {
    if (dispatches.length === 0) return;
    const tableBuffer = this.#tableOf(table.byteLength);
    this.#gpuDevice.queue.writeBuffer(tableBuffer, 0, table);
    const pass = encoder.beginComputePass({ label: "kvtier copy" });
    const maxWorkgroups = this.#gpuDevice.limits.maxComputeWorkgroupsPerDimension;
    for (const { source, destination, unitBytes, tableOffset, tiles } of dispatches) {
      const size = tiles * ENTRY_BYTES;
      const bindings = [
        { buffer: tableBuffer, offset: tableOffset, size },
        bindingOf(source),
        bindingOf(destination),
      ];
      pass.setPipeline(this.#pipelines[unitBytes]);
      pass.setBindGroup(
        0,
        this.#gpuDevice.createBindGroup({
          layout: this.#layout,
          entries: bindings.map((resource, binding) => ({ binding, resource })),
        }),
      );
      const columns = Math.min(tiles, maxWorkgroups);
      pass.dispatchWorkgroups(columns, Math.ceil(tiles / columns));
    }
    pass.end();
  }

  /** Destroys the table. */
  [Symbol.dispose](): void {
    this.#table?.destroy();
    this.#table = undefined;
  }

  #tableOf(byteLength: number): GPUBuffer {
    if (this.#table !== undefined && this.#table.size >= byteLength) return this.#table;
    this.#table?.destroy();
    const size = Math.max(MIN_TABLE_BYTES, 2 ** Math.ceil(Math.log2(byteLength)));
    const create = (): GPUBuffer => createGpuBuffer(this.#gpuDevice, "kvtier copy table", size);
    const { result: table, error } = catchGpuErrors(this.#gpuDevice, create);
    this.#table = table;
    error.then((found) => {
      // If the device is out of memory, this call fails and the next one tries again.
      if (found !== null && this.#table === table) this[Symbol.dispose]();
    });
    return table;
  }
}

function bindingOf({ buffer, byteOffset, byteLength }: MemoryRange): GPUBufferBinding {
  return { buffer: buffer as GPUBuffer, offset: byteOffset, size: byteLength };
}
