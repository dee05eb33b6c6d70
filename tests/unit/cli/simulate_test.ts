import { assert, assertEquals, assertMatch } from "@std/assert";
import { runKvtier } from "../../support/cli.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { writeTrace } from "../../support/traces.ts";

const GOOD = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 7]}';

Deno.test("kvtier simulate shows hit ratios by policy and capacity, beside the bound", async () => {
  await using directory = await tempDirectory();
  const path = await writeTrace(directory.path);
  const { code, out } = await runKvtier(["simulate", path, "--capacities", "10,20"]);
  assertEquals(code, 0);
  const [title, head, ...rows] = out.trim().split("\n");
  assertMatch(title ?? "", /^small\.jsonl: 60 requests, \d+ blocks, \d+ unique$/);
  assertMatch(head ?? "", /^blocks +10 +20$/);
  assertEquals(rows.map((row) => row.split(" ")[0]), [
    "LRU",
    "LFU_AGED",
    "S3_FIFO",
    "ARC",
    "Belady",
  ]);

  const json = await runKvtier(["simulate", path, "--capacities", "10,1000", "--json"]);
  const { traces: [trace] } = JSON.parse(json.out);
  const ratios = Object.fromEntries(
    trace.policies.map(({ policy, hitRatios }: { policy: string; hitRatios: number[] }) => [
      policy,
      hitRatios,
    ]),
  ) as Record<string, [number, number]>;
  const bound = ratios["Belady"] ?? [0, 0];
  for (const [small, large] of Object.values(ratios)) {
    assert(small <= bound[0] && small > 0, "at 10 blocks");
    assertEquals(large, bound[1], "with room for all");
  }
});

Deno.test("kvtier simulate draws a chart that has a title, labels and a dark side", async () => {
  await using directory = await tempDirectory();
  const path = await writeTrace(directory.path);
  const svg = `${directory.path}/hits.svg`;
  const { code } = await runKvtier(["simulate", path, "--capacities", "10,20", "--svg", svg]);
  assertEquals(code, 0);
  const text = await Deno.readTextFile(svg);
  assertMatch(text, /^<svg [^]*<title>Hit ratio of blocks: small\.jsonl<\/title>[^]*<\/svg>\n$/);
  assertMatch(text, /prefers-color-scheme:dark/);
  for (const label of ["LFU_AGED", "Belady", "capacity in blocks", "10", "20"]) {
    assertMatch(text, new RegExp(`>${label}<`));
  }
});

const wrong: Readonly<Record<string, [line: string, message: RegExp]>> = {
  "no JSON": ["{", /line 2: expected JSON/],
  "no object": ["[]", /line 2: expected an object/],
  "no hash_ids": [GOOD.replace("hash_ids", "ids"), /line 2, hash_ids: expected an array/],
  "a huge id": [GOOD.replace("7", "7e300"), /line 2, hash_ids: expected an array of integers/],
  "an id twice": [GOOD.replace("7", "0"), /line 2, hash_ids: expected each block once/],
  "a huge time": [GOOD.replace('": 0', '": 1e300'), /line 2, timestamp: expected a number from/],
  "a negative length": [GOOD.replace("600", "-1"), /line 2, input_length: expected a number from/],
  "no integer": [GOOD.replace("600", "1.5"), /line 2, input_length: expected an integer/],
};

for (const [what, [line, message]] of Object.entries(wrong)) {
  Deno.test(`kvtier simulate names the file and the line of a trace with ${what}`, async () => {
    await using directory = await tempDirectory();
    const path = `${directory.path}/bad.jsonl`;
    await Deno.writeTextFile(path, `${GOOD}\n${line}\n`);
    const { code, err } = await runKvtier(["simulate", path]);
    assertMatch(err, /bad\.jsonl: line 2/);
    assertMatch(err, message);
    assertEquals(code, 2);
  });
}

Deno.test("kvtier simulate refuses what it cannot use", async () => {
  for (
    const [args, message] of [
      [[], /TRACE: expected at least one file/],
      [["/nowhere.jsonl"], /TRACE: expected a file that can be read/],
      [["x", "--policies", "LRU,FIFO"], /--policies: expected some of LRU, LFU_AGED/],
      [["x", "--capacities", "0"], /--capacities: expected an integer of at least 1/],
    ] as const
  ) {
    const { code, err } = await runKvtier(["simulate", ...args]);
    assertMatch(err, message);
    assertEquals(code, 2);
  }
});
