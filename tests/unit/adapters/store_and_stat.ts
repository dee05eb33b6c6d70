// Stores one object with the fs adapter into the directory of its argument, a new one; prints the
// modes of all that this made.
import { walk } from "@std/fs";
import { relative } from "@std/path";
import { testKey } from "../../support/objects.ts";
import { openFs, testObject } from "../../support/fs_adapter.ts";

const [basePath = ""] = Deno.args;
await using adapter = await openFs({ base_path: basePath, relative_tmp_dir: "tmp/deep" });
await adapter.store([testObject(testKey(1))], { signal: new AbortController().signal });
const modes: Record<string, string> = {};
for await (const { path } of walk(basePath)) {
  const { mode, isFile } = await Deno.lstat(path);
  const name = isFile ? "object" : relative(basePath, path);
  modes[name.length === 2 ? "prefix" : name] = ((mode ?? 0) & 0o7777).toString(8);
}
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify(modes));
