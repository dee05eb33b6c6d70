/**
 * Runs work on a device and catches what the device says about it later, so that it disturbs no
 * error scope of the engine's.
 *
 * @param work Calls that do not wait: scopes are a stack that all users of a device share.
 * @returns What it returned, and the first error, or `null`; that promise never rejects.
 */
export function catchGpuErrors<T>(
  gpuDevice: GPUDevice,
  work: () => T,
): { readonly result: T; readonly error: Promise<Error | GPUError | null> } {
  gpuDevice.pushErrorScope("out-of-memory");
  gpuDevice.pushErrorScope("validation");
  let error: Promise<Error | GPUError | null>;
  let result: T;
  try {
    result = work();
  } finally {
    const scopes = Promise.all([gpuDevice.popErrorScope(), gpuDevice.popErrorScope()]);
    error = scopes.then(
      ([validation, memory]) => validation ?? memory,
      (cause) => cause instanceof Error ? cause : new Error(String(cause)),
    );
  }
  return { result, error };
}
