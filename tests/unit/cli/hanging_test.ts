import { assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { type Clock, systemClock } from "../../../src/base/clock.ts";
import { fillStore, l2, runForJson, runKvtier } from "../../support/cli.ts";
import { directoryOf } from "../../support/module_files.ts";
import { testKey, testKeys } from "../../support/objects.ts";

const hanging = new URL("../../support/hanging_adapter.ts", import.meta.url);
/** Deadlines of seconds pass in hundredths of the time. */
const clock: Clock = {
  now: () => systemClock.now(),
  schedule: (callback, delayMs, options) =>
    systemClock.schedule(callback, delayMs / (delayMs < 1_000 ? 1 : 100), options),
};

const commands: readonly [command: string[], methods: string[]][] = [
  [["ls"], ["create", "list"]],
  [["stat"], ["list"]],
  [["models"], ["list"]],
  [["models", "--remove", "test/model"], ["delete"]],
  [["verify"], ["list", "lookupAndLock", "load"]],
  [["export", "FILE"], ["list", "lookupAndLock", "load"]],
  [["import", "WHOLE"], ["lookupAndLock", "store"]],
  [["forget", "--model", "test/model"], ["list", "delete"]],
  [["forget", "--key", testKey(0).id], ["delete"]],
  [["check"], ["store", "lookupAndLock", "load"]],
];

Deno.test("an adapter that hangs ends each command with a sentence and exit code 1", async () => {
  const module = `export { default } from ${JSON.stringify(hanging.href)};`;
  await using directory = await directoryOf({ "hanging.ts": module });
  const { path } = directory;
  const inner = { type: "fs", "base_path": join(path, "kv") };
  await fillStore(inner, testKeys(3));
  const [file, whole] = [join(path, "kv.export"), join(path, "whole")];
  assertEquals((await runKvtier(["export", whole, ...l2(inner)])).code, 0);
  for (const [command, methods] of commands) {
    for (const method of methods) {
      // An import stores what its adapter lacks.
      const store = command[0] === "import" ? { ...inner, "base_path": join(path, method) } : inner;
      const config = { type: "hanging", inner: store, method };
      const words = command.map((word) => word === "FILE" ? file : word === "WHOLE" ? whole : word);
      const args = [...words, "--adapters-dir", path, ...l2(config)];
      await Deno.mkdir(store.base_path, { recursive: true });
      const { code, out, err } = await runForJson(args, { clock });
      assertMatch(`${out}${err}`, /within|does not respond|TimeoutError|deadline/i, args.join(" "));
      assertEquals(code, 1, `${args.join(" ")}: ${out}${err}`);
      await Deno.remove(`${file}.partial`).catch(() => {});
    }
  }
  const closing = l2({ type: "hanging", inner, method: "close" });
  const { code, out } = await runKvtier(["ls", "--adapters-dir", path, ...closing], { clock });
  assertEquals([code, out.split("\n").length], [0, 5]);
});
