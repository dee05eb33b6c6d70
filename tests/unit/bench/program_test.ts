import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { Row } from "../../bench/rows.ts";
import { childCommand } from "../../support/child.ts";

const program = new URL("../../bench/main.ts", import.meta.url);

async function bench(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const { code, stdout, stderr } = await childCommand(program, { args }).output();
  const [out = "", err = ""] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out, err };
}

Deno.test("bench program: a row for each device, operation and size, with finite figures", async () => {
  const few = ["--rounds", "1", "--objects", "1000", "--megabytes", "4"];
  const { code, out } = await bench(...few, "--json");
  assertEquals(code, 0);
  const { rows } = JSON.parse(out) as { rows: Row[] };
  for (const { medianMs, gbps = 1, ofLimit = 1 } of rows) {
    for (const value of [medianMs, gbps, ofLimit]) assert(Number.isFinite(value) && value >= 0);
  }
  const flat = rows.filter(({ device }) => device === "1,000 objects");
  assert(flat.some(({ operation }) => operation === "reportStatus()"));
  assert(rows.some(({ operation }) => operation === "1 ms timer late, loaded, p99.9"));
  const ofHost = rows.filter(({ device }) => device === "host memory");
  const sizes = [2 ** 18, 2 ** 20, 2 ** 22, 2 ** 24];
  assertEquals(
    ofHost.filter(({ ofLimit }) => ofLimit !== undefined).map((
      { operation, objectBytes },
    ) => [operation, objectBytes]),
    sizes.flatMap((size) =>
      [
        "store",
        ...(size === 2 ** 20 ? ["load a moment after a restart"] : []),
        "load after a restart",
        "load",
      ].map((operation) => [operation, size])
    ),
  );
});

Deno.test("bench program: rounds that are none are refused with a sentence", async () => {
  const { code, err } = await bench("--rounds", "none");
  assertEquals(code, 2);
  assertStringIncludes(err, "--rounds: expected a whole number above 0: received none");
});

Deno.test("bench program: a part that is none is refused with a sentence", async () => {
  const { code, err } = await bench("--only", "flat,none");
  assertEquals(code, 2);
  assertStringIncludes(err, "--only: expected some of l1, transfers");
  assertStringIncludes(err, "received none");
});
