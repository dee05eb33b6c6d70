// Uses the directory of its argument while it turns read-only for a while; prints the results.
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { openFs, temporaryFilesIn, testObject } from "../support/fs_adapter.ts";
import { testBytes, testKeys } from "../support/objects.ts";

const ATTEMPTS = 500;
const [basePath = ""] = Deno.args;
const call = { signal: new AbortController().signal };
const keys = testKeys(3);
const fresh = testKeys(3, 10);
const reasons = new Set<string | undefined>();
const adapter = await openFs({ base_path: basePath }, { onError: ({ code }) => reasons.add(code) });

async function store(keys: readonly ObjectKey[]): Promise<string> {
  return String((await adapter.store(keys.map((key) => testObject(key)), call)).stored);
}

async function load(keys: readonly ObjectKey[]): Promise<string> {
  const rooms = keys.map((key) => ({ key, parts: [new Uint8Array(1000)], byteLength: 1000 }));
  const loaded = await adapter.load(rooms, call);
  for (const { key, parts } of loaded.gather(rooms)) {
    const expected = testBytes(key, 1000);
    if (!parts[0]?.every((byte, i) => byte === expected[i])) throw new Error("wrong bytes");
  }
  return String(loaded);
}

async function run(command: string, ...args: string[]): Promise<void> {
  const decoder = new TextDecoder();
  for (let attempt = 0;; attempt++) {
    const { success, stderr } = await new Deno.Command(command, { args }).output();
    if (success) return;
    const reason = decoder.decode(stderr);
    // Background writes keep the file system busy for a moment.
    if (attempt === ATTEMPTS || !reason.includes("busy")) throw new Error(reason);
  }
}

const before = { stored: await store(keys), loaded: await load(keys) };
// Files open for writing prevent a remount as read-only, but not that of a second mount.
await run("mount", "--bind", basePath, basePath);
await run("mount", "-o", "remount,bind,ro", basePath);
const found = await adapter.lookupAndLock(keys, { ...call, prefix: true });
adapter.unlock?.(keys);
const readOnly = {
  stored: await store(fresh),
  loaded: await load(keys),
  found: String(found),
  deleted: String((await adapter.delete?.(keys, call))?.deleted),
  listed: (await adapter.usage?.(call))?.objectCount,
};
await run("umount", "--lazy", basePath);
const after = {
  stored: await store(fresh),
  loaded: await load(fresh),
  deleted: String((await adapter.delete?.(keys, call))?.deleted),
};
await adapter[Symbol.asyncDispose]();
const temporary = await temporaryFilesIn(basePath);
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify({ before, readOnly, reasons: [...reasons], after, temporary }));
