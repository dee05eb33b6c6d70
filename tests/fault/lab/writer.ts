// Reports that it is ready, waits for a byte, and repeatedly stores a set of objects into a
// directory: with the fs adapter, or, for the control, by writing each file in place. Prints the
// numbers of the stored objects. A failed store ends it unless failures are expected.
import { dirname } from "@std/path";
import type { GuardedObject } from "../../../src/l2/adapter_guard.ts";
import { fileOf, openFs } from "../../support/fs_adapter.ts";
import { StoredSet } from "./stored_set.ts";
import type { WriterOptions } from "./writer_options.ts";

const options = JSON.parse(Deno.args[0] ?? "") as WriterOptions;
const { basePath, batch, count, durability, first = 0 } = options;
const set = new StoredSet(count, options.payloadBytes);
const objects = [...set.objects.slice(first), ...set.objects.slice(0, first)];
const say = (line: string) => Deno.stdout.write(new TextEncoder().encode(`${line}\n`));

async function writeInPlace({ key, parts }: GuardedObject): Promise<void> {
  const path = fileOf(basePath, key);
  await Deno.mkdir(dirname(path), { recursive: true });
  using file = await Deno.open(path, { write: true, create: true, truncate: true });
  for (const part of parts) {
    for (let done = 0; done < part.byteLength;) done += await file.write(part.subarray(done));
  }
}

const environment = options.mayFail ? { onError: () => {} } : {};
await using adapter = await openFs({ base_path: basePath, durability }, environment);
const { signal } = new AbortController();
await say("ready");
await Deno.stdin.read(new Uint8Array(1));
for (let round = 0; round < (options.rounds ?? Infinity); round++) {
  for (let start = 0; start < objects.length; start += batch) {
    const some = objects.slice(start, start + batch);
    if (options.inPlace) {
      await Promise.all(some.map(writeInPlace));
      continue;
    }
    const { stored } = await adapter.store(some, { signal });
    if (!options.mayFail && stored.popcount() < some.length) throw new Error("A store failed");
    if (!options.acknowledges) continue;
    const numbers = [...stored.indices()].map((i) => (first + start + i) % count);
    if (numbers.length > 0) await say(numbers.join(" "));
  }
}
