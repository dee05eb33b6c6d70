/** Creates a buffer that shaders use and that copies read and write. */
export function createGpuBuffer(gpuDevice: GPUDevice, label: string, size: number): GPUBuffer {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  return gpuDevice.createBuffer({ label, size, usage });
}
