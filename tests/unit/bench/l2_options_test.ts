import { assert, assertEquals, assertThrows } from "@std/assert";
import { type BenchOptions, parseOptions, UsageError } from "../../bench/l2/options.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;

function parsed(...args: string[]): BenchOptions {
  const options = parseOptions(args);
  assert(options !== "help");
  return options;
}

Deno.test("bench l2 options: without any, the sweep over sizes with all targets", () => {
  const { shapes, ...rest } = parsed();
  assertEquals(rest, {
    rounds: 7,
    warmupRounds: 1,
    maxHitRate: 0,
    isVerified: false,
    operations: ["store", "lookup", "load"],
    targets: [
      ...["kvtier-fs", "limit", "cacache", "unstorage"],
      ...["dram", "file_pool", "connector", "resp", "s3"]
        .flatMap((type) => [`kvtier-${type}`, `limit-${type}`]),
    ],
    isQuiet: false,
    format: "text",
  });
  assertEquals(
    shapes.map(({ objectBytes }) => objectBytes),
    [64 * KIB, 256 * KIB, MIB, 2.25 * MIB, 4 * MIB, 16 * MIB],
  );
  for (const { objectBytes, numKeys, inFlight } of shapes) {
    assertEquals(inFlight, 3);
    assertEquals(numKeys === 32, objectBytes <= 2.25 * MIB);
    assert(objectBytes * numKeys * inFlight <= 256 * MIB);
  }
});

Deno.test("bench l2 options: a size alone moves 32 keys in one call", () => {
  const shape = { objectBytes: 256 * KIB, numKeys: 32, inFlight: 1 };
  assertEquals(parsed("--data-size-kb", "256").shapes, [shape]);
  assertEquals(parsed("--data-size-kb=256", "--in-flight", "3").shapes, [
    { ...shape, inFlight: 3 },
  ]);
});

Deno.test("bench l2 options: given numbers hold for every size of the sweep", () => {
  for (const { numKeys, inFlight } of parsed("--num-keys", "4").shapes) {
    assertEquals({ numKeys, inFlight }, { numKeys: 4, inFlight: 1 });
  }
  for (const { numKeys, inFlight } of parsed("--in-flight", "2").shapes) {
    assertEquals({ numKeys, inFlight }, { numKeys: 32, inFlight: 2 });
  }
});

Deno.test("bench l2 options: of several adapters the first counts, and names the target", () => {
  const one = '{"type":"mock","max_size_gb":1,"mock_bandwidth_gb":9}';
  const { adapter, targets } = parsed("--l2-adapter", one, "--l2-adapter", '{"type":"fs"}');
  assertEquals(adapter, { type: "mock", max_size_gb: 1, mock_bandwidth_gb: 9 });
  assertEquals(targets, ["kvtier-mock", "limit", "cacache", "unstorage"]);
});

Deno.test("bench l2 options: everything else that can be said", () => {
  const options = parsed(
    ...["--targets", "limit,kvtier-fs", "--rounds", "2", "--warmup-rounds", "0", "--json", "-q"],
    ...["--lookup-max-hit-rate", "0.5", "--no-skip-verify", "--output", "file"],
  );
  assertEquals(options.targets, ["kvtier-fs", "limit"]);
  assertEquals([options.rounds, options.warmupRounds, options.maxHitRate], [2, 0, 0.5]);
  assertEquals([options.isQuiet, options.isVerified], [true, true]);
  assertEquals([options.format, options.output], ["json", "file"]);
  assertEquals(parsed("--format", "json", "--only", "load", "--skip-verify").operations, ["load"]);
  assertEquals(parseOptions(["-h"]), "help");
});

const refused: readonly (readonly [string, readonly string[], string])[] = [
  ["an unknown option", ["--flamegraph", "on"], "--flamegraph"],
  ["a stray word", ["fs"], "'fs'"],
  ["no value", ["--rounds"], "--rounds"],
  [
    "no number",
    ["--num-keys", "many"],
    '--num-keys: expected an integer from 1 on: received "many"',
  ],
  ["no keys", ["--num-keys", "0"], "--num-keys"],
  ["half a call", ["--in-flight", "1.5"], "--in-flight"],
  ["no rounds", ["--rounds", "0"], "--rounds"],
  ["no size", ["--data-size-kb", "0"], "--data-size-kb"],
  ["a share over 1", ["--lookup-max-hit-rate", "1.1"], "--lookup-max-hit-rate"],
  ["an empty share", ["--lookup-max-hit-rate", ""], "--lookup-max-hit-rate"],
  ["a size that is not aligned", ["--data-size-kb", "6", "--l1-align-bytes", "4096"], "6144"],
  ["an unknown operation", ["--only", "delete"], "one of store, lookup, load"],
  ["an unknown format", ["--format", "xml"], "one of text, json"],
  ["an unknown target", ["--targets", "limit,redis"], "one of kvtier-fs, limit"],
  ["an adapter that is no JSON", ["--l2-adapter", "fs"], "--l2-adapter: expected JSON"],
  ["an adapter without a type", ["--l2-adapter", "{}"], '"type"'],
  ["verification of half a round", ["--no-skip-verify", "--only", "load"], "--only"],
];

for (const [what, args, part] of refused) {
  Deno.test(`bench l2 options: ${what} is refused with a sentence`, () => {
    assertThrows(() => parseOptions([...args]), UsageError, part);
  });
}
