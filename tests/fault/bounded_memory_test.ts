import { assertEquals, assertLessOrEqual } from "@std/assert";
import { runChild } from "../support/child.ts";

const MIB = 2 ** 20;
const OPERATIONS = 100_000;
const LOAD_BYTES = 128 * MIB;
const STORE_BYTES = 128 * MIB;

interface Peak {
  /** Growth of the process in bytes. */
  readonly rss: number;
  /** Load buffers in use. */
  readonly loads: number;
  /** Maximum number of bytes lent to the adapter at a time. */
  readonly lent: number;
}

Deno.test("100,000 concurrent operations stay within the bytes in flight, and all settle", async () => {
  const said = await runChild(new URL("./many_operations.ts", import.meta.url), {
    args: [OPERATIONS, LOAD_BYTES, STORE_BYTES].map(String),
    // The garbage collector is configured to keep garbage small, which is not a use of memory.
    permissions: ["-A", "--v8-flags=--max-old-space-size=192"],
  });
  const { peak, ...rest } = said as { peak: Peak };
  assertEquals(rest as unknown, {
    settled: OPERATIONS,
    hits: OPERATIONS,
    wrong: 0,
    hasPut: true,
    requests: OPERATIONS,
    left: { requests: 0, loadBytes: 0, lentBytes: 0, unsaved: 0, locks: 0 },
  });
  const limit = 1.1 * (LOAD_BYTES + STORE_BYTES);
  assertLessOrEqual(peak.loads, LOAD_BYTES, "load buffers");
  assertLessOrEqual(peak.lent, limit, "bytes that the adapter was lent");
  assertLessOrEqual(peak.rss, limit, "growth of the process");
});
