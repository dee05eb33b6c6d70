import { assertEquals } from "@std/assert";
import { compareCopyPaths } from "../../../src/memory/copy_trial.ts";
import type { CopyPath } from "../../../src/memory/memory_device.ts";

const WAIT_MS = 11;

/** A device that takes these times for one repeat, and is disturbed at some of the measurements. */
class TimedDevice {
  readonly measured: [CopyPath, number][] = [];

  constructor(
    readonly ms: Readonly<Record<CopyPath, number>>,
    readonly disturbances: Readonly<Record<number, number>> = {},
  ) {}

  readonly time = async (path: CopyPath, repeats: number): Promise<number | null> => {
    const count = this.measured.push([path, repeats]);
    return await Promise.resolve(
      WAIT_MS + this.ms[path] * repeats + (this.disturbances[count] ?? 0),
    );
  };
}

Deno.test("a trial takes the path that is clearly faster in two rounds", async () => {
  for (
    const [kernel, copies, path] of [[5, 20, "kernel"], [20, 5, "copies"], [
      20,
      22,
      "copies",
    ]] as const
  ) {
    const device = new TimedDevice({ kernel, copies });
    assertEquals(await compareCopyPaths(device.time), { path, kernelMs: kernel, copiesMs: copies });
    assertEquals(device.measured.length, 6);
  }
});

Deno.test("a disturbance in one round does not decide a trial", async () => {
  // The second measurement of the first round is that of the copies, the third the kernel's.
  const slowCopies = new TimedDevice({ kernel: 20, copies: 5 }, { 2: 100 });
  assertEquals((await compareCopyPaths(slowCopies.time))?.path, "copies");
  const slowKernel = new TimedDevice({ kernel: 5, copies: 20 }, { 3: 100 });
  assertEquals((await compareCopyPaths(slowKernel.time))?.path, "kernel");
});

Deno.test("a trial repeats copies that are too short to compare", async () => {
  const device = new TimedDevice({ kernel: 0.01, copies: 0.2 });
  const speeds = await compareCopyPaths(device.time);
  assertEquals(speeds?.path, "kernel");
  const repeats = device.measured.filter(([path, count]) => path === "kernel" && count > 0);
  assertEquals(repeats.map(([, count]) => count), [1, 8, 64, 64]);
});

Deno.test("a trial without a clear difference chooses copies", async () => {
  const device = new TimedDevice({ kernel: 0, copies: 0 });
  assertEquals(await compareCopyPaths(device.time), { path: "copies", kernelMs: 0, copiesMs: 0 });
  assertEquals(device.measured.length, 12);
});

Deno.test("a trial ends if the device fails", async () => {
  const device = new TimedDevice({ kernel: 5, copies: 20 });
  let left = 5;
  const speeds = await compareCopyPaths(async (path, repeats) =>
    left-- > 0 ? await device.time(path, repeats) : null
  );
  assertEquals(speeds, null);
});
