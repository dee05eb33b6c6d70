/**
 * A `file_pool` configuration for a case of the conformance suite: slots that fit its largest
 * object, and enough of them for all of its objects.
 */
export function filePoolConfig(
  directory: string,
  promise: string,
  params: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> {
  const { slots, slotBytes } = sizeFor(promise);
  return {
    "pool_size": slots,
    "backend_params": { "file_path": directory, "slot_bytes": slotBytes, ...params },
  };
}

function sizeFor(promise: string): { slots: number; slotBytes: number } {
  if (promise.includes("several MiB")) return { slots: 4, slotBytes: 6 * 2 ** 20 };
  if (/concurrent|aborted/.test(promise)) return { slots: 24, slotBytes: 204_800 };
  if (/batch of 300|chain/.test(promise)) return { slots: 320, slotBytes: 8192 };
  return { slots: 60, slotBytes: 73_728 };
}
