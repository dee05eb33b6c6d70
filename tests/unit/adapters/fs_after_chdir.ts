// Opens the fs adapter with a relative path that does not exist, changes the working directory and
// stores an object; prints whether the object is below the first directory, and below the second.
import { join } from "@std/path";
import { objectFilesIn, openFs, testObject } from "../../support/fs_adapter.ts";
import { testKey } from "../../support/objects.ts";

const [directory = ""] = Deno.args;
const [first, second] = [join(directory, "first"), join(directory, "second")];
for (const path of [first, second]) await Deno.mkdir(path);
Deno.chdir(first);
await using adapter = await openFs({ base_path: "kv/objects" });
Deno.chdir(second);
await adapter.store([testObject(testKey(1))], { signal: new AbortController().signal });
const found: boolean[] = [];
for (const path of [first, second]) found.push((await objectFilesIn(path)).length > 0);
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify(found));
