// Stores the same few objects into a directory, over and over, until it is killed: with the fs
// adapter, or, as a control that shows what a kill can do, by writing each file in place.
import { dirname } from "@std/path";
import type { GuardedObject } from "../../src/l2/adapter_guard.ts";
import { fileOf, openFs } from "../support/fs_adapter.ts";
import { testKeys, testLayout } from "../support/objects.ts";
import { sealedObject } from "../support/sealed_objects.ts";
import { KILLED_OBJECT_BYTES, KILLED_OBJECTS } from "./killed_objects.ts";

const [basePath = "", method = ""] = Deno.args;
const layout = testLayout(KILLED_OBJECT_BYTES);
const objects = testKeys(KILLED_OBJECTS).map((key) => sealedObject(key, layout));
const adapter = await openFs({ base_path: basePath });

async function writeInPlace({ key, parts }: GuardedObject): Promise<void> {
  const path = fileOf(basePath, key);
  await Deno.mkdir(dirname(path), { recursive: true });
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  for (const part of parts) {
    for (let done = 0; done < part.byteLength;) done += await file.write(part.subarray(done));
  }
}

await Deno.stdout.write(new TextEncoder().encode("storing\n"));
for (;;) {
  if (method === "in-place") await Promise.all(objects.map(writeInPlace));
  else await adapter.store(objects, { signal: new AbortController().signal });
}
