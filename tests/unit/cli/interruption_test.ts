import { assertEquals, assertLess, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { childCommand } from "../../support/child.ts";
import { contentsOf, fillStore, l2, openGuard, runForJson } from "../../support/cli.ts";
import { directoryOf } from "../../support/module_files.ts";
import { testKeys } from "../../support/objects.ts";
import { waitUntil } from "../../support/wait_until.ts";

const program = new URL("../../../src/cli/main.ts", import.meta.url);
const slow = new URL("../../support/slow_adapter.ts", import.meta.url);
const OBJECTS = 1_000;
const QUIET = ["sh", "-c", 'exec "$@" 2>/dev/null', "sh"] as const;

/** A directory with an adapter module `slow`, and a store of many objects. */
async function place(objects = OBJECTS) {
  const module = `export { default } from ${JSON.stringify(slow.href)};`;
  const directory = await directoryOf({ "slow.ts": module });
  const config = { type: "fs", "base_path": join(directory.path, "kv") };
  await fillStore(config, testKeys(objects));
  const file = join(directory.path, "kv.export");
  const slowly = ["--adapters-dir", directory.path, ...l2({ type: "slow", inner: config })];
  return { directory, config, file, slowly };
}

/** Runs `kvtier` as a process that gets a signal as soon as `isMidway`; its code and stdout. */
async function interrupt(
  args: readonly string[],
  signal: Deno.Signal,
  isMidway: () => Promise<boolean>,
): Promise<[code: number, out: string]> {
  const child = childCommand(program, { args: [...args, "--json"], shell: QUIET }).spawn();
  const output = child.output();
  await waitUntil(isMidway);
  child.kill(signal);
  const { code, stdout } = await output;
  return [code, new TextDecoder().decode(stdout)];
}

async function sizeOf(path: string): Promise<number> {
  return (await Deno.stat(path).catch(() => undefined))?.size ?? 0;
}

Deno.test("export after SIGINT and after SIGKILL continues, and loses nothing", async () => {
  const { directory, config, file, slowly } = await place();
  await using _directory = directory;
  const args = ["export", file, ...slowly];
  const midway = async () => await sizeOf(`${file}.partial`) > 0;
  const [killed] = await interrupt(args, "SIGKILL", midway);
  assertEquals(killed, 137);
  const first = await sizeOf(`${file}.partial`);
  const grows = async () => await sizeOf(`${file}.partial`) > first;
  const [stopped, out] = await interrupt(args, "SIGINT", grows);
  assertEquals(stopped, 1);
  assertMatch(
    JSON.parse(out).error,
    /^Interrupted; run the same command again to continue: \S+ has \d+ objects/,
  );
  assertEquals(await sizeOf(file), 0);
  const { json, code } = await runForJson(["export", file, ...l2(config)]);
  assertEquals([code, json.objects], [0, OBJECTS]);
  assertLess(0, json.resumed);
  assertLess(json.resumed, OBJECTS);

  // The import is killed too.
  const copy = { type: "fs", "base_path": join(directory.path, "copy") };
  const slowCopy = ["--adapters-dir", directory.path, ...l2({ type: "slow", inner: copy })];
  const begun = async () => (await listed(copy)) > 0;
  await interrupt(["import", file, ...slowCopy], "SIGKILL", begun);
  const imported = await runForJson(["import", file, ...l2(copy)]);
  const { stored, present } = imported.json.adapters[0];
  assertEquals([imported.code, stored + present], [0, OBJECTS]);
  assertLess(0, present);
  assertEquals(await contentsOf(copy), await contentsOf(config));
});

/** Number of objects in a store that may not exist yet. */
async function listed(config: { readonly type: string; readonly base_path: string }) {
  if (await sizeOf(config.base_path) === 0) return 0;
  await using store = await openGuard(config);
  for await (const _object of store.guard.list()) return 1;
  return 0;
}

Deno.test("verify shows its progress in a terminal, in colour, and cleans up after itself", async () => {
  const { directory, config } = await place(300);
  await using _directory = directory;
  const { stdout } = await childCommand(program, {
    args: ["verify", ...l2(config)],
    shell: [
      "sh",
      "-c",
      `q=''; for a in "$@"; do q="$q '$a'"; done; NO_COLOR= script -qec "$q" /dev/null`,
      "sh",
    ],
  }).output();
  const text = new TextDecoder().decode(stdout).replaceAll("\r\x1b[2K", "<CLEAR>");
  assertMatch(text, /<CLEAR>verify \[#*-*\] \d+ % \d+ objects, .*\/s/);
  assertMatch(text, /<CLEAR>300 objects: 300 intact \(312 KiB\), 0 damaged/);
});
