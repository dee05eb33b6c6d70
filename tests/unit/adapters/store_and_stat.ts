// Stores one object with the fs adapter into the new directory of its argument; prints the modes of
// everything created.
import { walk } from "@std/fs";
import { relative } from "@std/path";
import { testKey } from "../../support/objects.ts";
import { openFs, testObject } from "../../support/fs_adapter.ts";

const [basePath = "", extra = "{}"] = Deno.args;
const adapter = await openFs({
  base_path: basePath,
  relative_tmp_dir: "tmp/deep",
  ...JSON.parse(extra),
});
await adapter.store([testObject(testKey(1))], { signal: new AbortController().signal });
// Directories are made in the background, and get their modes after that.
await adapter[Symbol.asyncDispose]();
const modes: Record<string, string> = {};
for await (const { path, name, isFile } of walk(basePath)) {
  const { mode } = await Deno.lstat(path);
  modes[isFile ? kindOf(name) : directoryAt(relative(basePath, path))] = ((mode ?? 0) & 0o7777)
    .toString(8);
}
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify(modes));

function kindOf(name: string): string {
  return name.endsWith(".data") ? "object" : name.slice(name.lastIndexOf(".") + 1);
}

function directoryAt(path: string): string {
  return path.length === 2 ? "prefix" : path;
}
