import { delay } from "@std/async";

/** Waits for a condition that background work fulfils. */
export async function waitUntil(
  isTrue: () => boolean | Promise<boolean>,
  limitMs = 10_000,
): Promise<void> {
  const end = performance.now() + limitMs;
  while (!await isTrue()) {
    if (performance.now() > end) throw new Error(`Not true after ${limitMs} ms: ${isTrue}`);
    await delay(5);
  }
}
