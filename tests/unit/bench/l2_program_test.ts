import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import type { Row } from "../../bench/l2/row.ts";
import { childCommand } from "../../support/child.ts";
import { redisTest } from "../../support/redis_server.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const program = new URL("../../bench/l2/main.ts", import.meta.url);
const tiny = ["--rounds", "1", "--warmup-rounds", "0", "--num-keys", "2", "--data-size-kb", "4"];

interface Output {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function bench(...args: string[]): Promise<Output> {
  const command = childCommand(program, { args });
  const { code, stdout, stderr } = await command.output();
  const [out = "", err = ""] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  return { code, out, err };
}

function rowsOf(text: string): Row[] {
  return (JSON.parse(text) as { rows: Row[] }).rows;
}

Deno.test("bench l2 program: one JSON object with a row for each target and operation", async () => {
  const files = ["--targets", "kvtier-fs,limit,cacache,unstorage"];
  const options = [...tiny, ...files, "--in-flight", "3", "--json", "--no-skip-verify"];
  const { code, out, err } = await bench(...options);
  assertEquals([code, err], [0, ""]);
  const rows = rowsOf(out);
  const ofSize = rows.filter(({ objectBytes, keys }) => objectBytes === 4096 && keys === 6);
  assertEquals(
    ofSize.map(({ target, op, how }) => [target, op, how ?? ""].join(" ").trim()).sort(),
    [
      ...["limit", "cacache", "unstorage", "kvtier-fs"].flatMap((target) => [
        `${target} store`,
        `${target} lookup each`,
        `${target} load`,
      ]),
      "kvtier-fs lookup chain",
    ].sort(),
  );
  const chain = rows.filter(({ keys }) => keys === 1_000);
  assertEquals(chain.map(({ target, op, how }) => [target, op, how]), [
    ["kvtier-fs", "lookup", "chain"],
    ["kvtier-fs", "lookup", "each"],
  ]);
  for (const { success } of chain) assertEquals(success, { done: 1_000, of: 1_000 });
  assertEquals(ofSize.length + chain.length, rows.length);
  for (const row of rows) {
    const isMoving = row.op !== "lookup";
    for (const value of [row.medianMs, row.minMs, row.maxMs, row.p99Ms, row.usPerKey]) {
      assert(Number.isFinite(value));
    }
    assertEquals(row.rounds, 1);
    assertEquals("gbps" in row, isMoving);
    assertEquals("ofLimit" in row, isMoving && row.target !== "limit");
    assertEquals("concurrency" in row, !row.target.startsWith("kvtier-"));
    if (row.keys === 6) assertEquals(row.success, { done: isMoving ? 6 : 0, of: 6 });
  }
});

redisTest("bench l2 program: each adapter beside the plain use of its client", async () => {
  const types = ["dram", "file_pool", "connector", "resp", "s3"];
  const targets = types.flatMap((type) => [`kvtier-${type}`, `limit-${type}`]);
  const { code, out, err } = await bench(
    ...[...tiny, "--targets", targets.join(","), "--json", "--no-skip-verify"],
    ...["--lookup-max-hit-rate", "1"],
  );
  assertEquals([code, err], [0, ""]);
  const rows = rowsOf(out);
  for (const target of targets) {
    const own = rows.filter((row) => row.target === target);
    const hasChain = target.startsWith("kvtier-");
    assertEquals(
      own.map(({ op, how = "" }) => `${op} ${how}`.trim()),
      ["store", ...hasChain ? ["lookup chain"] : [], "lookup each", "load"],
    );
    for (const { op, success, ofLimit } of own) {
      assertEquals(success, { done: 2, of: 2 });
      assertEquals(ofLimit !== undefined, hasChain && op !== "lookup");
    }
  }
});

Deno.test("bench l2 program: the table for a reader, into a file, and nothing left behind", async () => {
  await using directory = await tempDirectory();
  const output = join(directory.path, "table.txt");
  const basePath = join(directory.path, "objects");
  const adapter = JSON.stringify({ type: "fs", base_path: basePath });
  const { code, out } = await bench(
    ...[...tiny, "--l2-adapter", adapter, "--targets", "kvtier-fs,limit", "--output", output],
    ...["--lookup-max-hit-rate", "0.5"],
  );
  assertEquals(code, 0);
  assertStringIncludes(out, "Keys/call     2\n");
  const text = await Deno.readTextFile(output);
  assertStringIncludes(text, `fs in ${basePath}`);
  assertStringIncludes(text, "of limit");
  for (const op of ["store", "lookup, chain", "lookup, each", "load"]) {
    assert(text.includes(`\n${op} `), `${op} has a line`);
  }
  const { code: quietCode, out: quiet } = await bench(...tiny, "-q", "--targets", "limit");
  assertEquals(quietCode, 0);
  assert(quiet.startsWith("operation"), "without a header");
  const left: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(basePath)) {
    if (!isDirectory) continue;
    for await (const entry of Deno.readDir(join(basePath, name))) left.push(entry.name);
    assert(!name.startsWith("kvtier-bench"), name);
  }
  assertEquals(left.filter((name) => name.endsWith(".data") || name.endsWith(".tmp")), []);
});

Deno.test("bench l2 program: what it is told wrongly ends with 2 and a sentence", async () => {
  const wrong = [
    ["--num-keys", "none"],
    ["--flamegraph", "on"],
    ["--l2-adapter", '{"type":"nowhere"}'],
    ["--l2-adapter", '{"type":"fs","base_path":"/tmp","colour":1}'],
  ];
  for (const args of wrong) {
    const { code, out, err } = await bench(...args);
    assertEquals([code, out], [2, ""], args.join(" "));
    const [first = ""] = err.split("\n");
    assertGreater(first.length, 20);
    assert(!err.includes("    at "), "no stack trace");
  }
});

Deno.test("bench l2 program: an adapter that cannot be made, or keeps nothing, ends with 1", async () => {
  await using directory = await tempDirectory();
  const file = join(directory.path, "file");
  await Deno.writeTextFile(file, "");
  const inTheWay = JSON.stringify({ type: "fs", base_path: file });
  const made = await bench(...tiny, "--targets", "kvtier-fs", "--l2-adapter", inTheWay);
  assertEquals(made.code, 1);
  assertStringIncludes(made.err, "base_path");

  const small = JSON.stringify({ type: "mock", max_size_gb: 1e-6, mock_bandwidth_gb: 1000 });
  const options = ["--targets", "kvtier-mock", "--only", "store", "--json"];
  const kept = await bench(...tiny, ...options, "--l2-adapter", small);
  assertEquals(kept.code, 1);
  assertStringIncludes(kept.err, "store of 0 of 2 keys");
  assertEquals(rowsOf(kept.out).map(({ success }) => success), [{ done: 0, of: 2 }]);
});

Deno.test("bench l2 program: the options are explained on request", async () => {
  const { code, out } = await bench("--help");
  assertEquals(code, 0);
  for (const option of ["--l2-adapter", "--num-keys", "--only", "--lookup-max-hit-rate"]) {
    assertStringIncludes(out, option);
  }
});
