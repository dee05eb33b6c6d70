/**
 * Runs work on a device and catches the GPU errors that it causes, which would otherwise reach error
 * scopes of the engine.
 *
 * @param work Must be synchronous, because all users of a device share one stack of error scopes.
 * @returns The result of `work`, and a promise of the first error or `null`, which never rejects.
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
