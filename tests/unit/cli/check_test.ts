import { assertEquals, assertMatch } from "@std/assert";
import { runKvtier } from "../../support/cli.ts";
import { filesIn } from "../../support/fs_adapter.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

async function check(...adapters: Readonly<Record<string, unknown>>[]): Promise<[number, string]> {
  const options = adapters.flatMap((config) => ["--l2-adapter", JSON.stringify(config)]);
  const { code, out } = await runKvtier(["check", ...options]);
  return [code, out];
}

Deno.test("kvtier check tries each adapter out and leaves nothing behind", async () => {
  await using directory = await tempDirectory();
  const fs = { type: "fs", "base_path": directory.path };
  const [code, out] = await check(fs, { type: "mock", "max_size_gb": 1, mock_bandwidth_gb: 10 });
  assertMatch(out, /^fs: works: stored in [\d.]+ ms, .*survive the process, other processes see/);
  assertMatch(out, /\nmock: works: .*end with the process/);
  assertEquals(code, 0);
  const left = (await filesIn(directory.path)).filter((name) => name.endsWith(".data"));
  assertEquals(left, []);
});

Deno.test("kvtier check says what does not work, and goes on", async () => {
  await using directory = await tempDirectory();
  const file = `${directory.path}/file`;
  await Deno.writeTextFile(file, "");
  const [code, out] = await check(
    { type: "fs", "base_path": `${file}/kv` },
    { type: "tape" },
    { type: "fs", "base_path": `${directory.path}/kv` },
  );
  assertMatch(out, /^fs: does not work: fs: .* failed: ENOTDIR: .*\n/);
  assertMatch(out, /\ntape: does not work: .*"tape"/);
  assertMatch(out, /\nfs: works: /);
  assertEquals(code, 1);
});
