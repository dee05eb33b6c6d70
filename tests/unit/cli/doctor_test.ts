import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import type { Finding } from "../../../src/cli/findings.ts";
import type { L2Config } from "../../../src/l2/adapter_config.ts";
import { fillStore, l2, runForJson, runKvtier } from "../../support/cli.ts";
import { filesIn } from "../../support/fs_adapter.ts";
import { testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

/** The findings of `kvtier doctor`, by subject, and its exit code. */
async function examine(config: L2Config, ...options: string[]) {
  const { code, json } = await runForJson(["doctor", ...l2(config), ...options]);
  const list: readonly Finding[] = json.findings;
  const wrong = list.filter(({ verdict }) => verdict === "wrong").map(({ text }) => text);
  const textOf = (subject: string) => list.find((each) => each.subject.endsWith(subject))?.text;
  return { code, wrong, textOf };
}

Deno.test("kvtier doctor examines the host, a directory, and a round trip", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  const config = { type: "fs", "base_path": path };
  const empty = await examine(config);
  assertEquals([empty.code, empty.wrong], [0, []]);
  assertMatch(empty.textOf("Deno") ?? "", /^2\./);
  assertMatch(empty.textOf("workers") ?? "", /^a worker started in \d+ ms$/);
  assertMatch(empty.textOf(": owner") ?? "", /^user \d+, mode 0700$/);
  assertMatch(empty.textOf(": file system") ?? "", /local|memory|type/);
  assertMatch(empty.textOf(": space") ?? "", /iB of .*iB free$/);
  assertMatch(empty.textOf("fs: round trip") ?? "", /1 MiB stored in .* loaded in .*\/s\)/);
  assertEquals(empty.textOf("fs: clock"), "agrees with this host's");
  assertStringIncludes(empty.textOf("fs: objects") ?? "", "nothing would be hit until");
  assertEquals((await filesIn(path)).filter((name) => /\.data$|doctor/.test(name)), []);
  const { out } = await runKvtier(["doctor", ...l2(config)], { isOutTerminal: true });
  assertStringIncludes(out, "\x1b[32mok\x1b[0m     Deno: 2");
  assertMatch(out, /\n0 wrong, \d slow\n$/);
});

Deno.test("kvtier doctor says why nothing would be hit", async () => {
  await using directory = await tempDirectory();
  const config = { type: "fs", "base_path": directory.path };
  await fillStore(config, testKeys(3));
  const all = await examine(config);
  assertMatch(all.textOf("fs: objects") ?? "", /^3 of 3 objects, .* could be hit \(test\/model\)/);
  const other = await examine(config, "--model", "llama");
  assertEquals(other.code, 1);
  assertMatch(
    other.wrong.join(),
    /^nothing would be hit: 3 .* none of model llama; there are test\/model$/,
  );
  const salted = await examine(config, "--model", "test/model", "--salt", "x");
  assertMatch(
    salted.wrong.join(),
    /^nothing would be hit: 3 objects of the model, but none under this salt$/,
  );
  const tiny = await examine({ ...config, "max_capacity_gb": 1e-6 });
  assertMatch(tiny.wrong.join(), /but max_capacity_gb is 0\.000001: a cache evicts the rest/);
  // The question itself evicts nothing.
  assertEquals((await examine(config)).textOf("fs: objects"), all.textOf("fs: objects"));
});

Deno.test("kvtier doctor says what is wrong with a directory or a server", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  await Deno.writeTextFile(join(path, "file"), "");
  const config = (name: string) => ({ type: "fs", "base_path": join(path, name) });
  assertMatch((await examine(config("file"))).wrong.join(), /^is no directory/);
  const missing = await examine(config("missing"));
  assertEquals(missing.code, 0);
  assertMatch(missing.textOf("missing") ?? "", /^does not exist: a cache creates it/);
  assertEquals((await filesIn(path)).length, 1);
  await Deno.mkdir(join(path, "open"));
  await Deno.chmod(join(path, "open"), 0o777);
  assertMatch((await examine(config("open"))).wrong[0] ?? "", /mode 0777: others can replace/);
  const unreachable = await examine({ type: "resp", host: "127.0.0.1", port: 1 });
  assertEquals(unreachable.code, 1);
  assertMatch(unreachable.wrong.join(), /ECONNREFUSED|refused/i);
  const unknown = await examine({ type: "tape" });
  assertMatch(unknown.wrong.join(), /"tape"/);
});
