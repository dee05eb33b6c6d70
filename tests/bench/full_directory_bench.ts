import { dirname, join } from "@std/path";
import type { DiskSpaceStatus } from "../../adapters/_fs/disk_space_options.ts";
import type { FileStore } from "../../adapters/_fs/file_store.ts";
import { diskBytesIn, fileOf, openFileStore, testObject } from "../support/fs_adapter.ts";
import { testKeys } from "../support/objects.ts";
import { type Row, time } from "./rows.ts";

const OBJECT_BYTES = 100;
const { signal } = new AbortController();

/** Times the first store into a directory that is full when it is opened, with so many objects. */
export async function benchFullDirectory(
  counts: readonly number[],
  directory: string,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (const count of counts) {
    const path = join(directory, `full-${count}`);
    await Deno.mkdir(join(path, "tmp"), { recursive: true, mode: 0o700 });
    await Deno.chmod(path, 0o700);
    const keys = testKeys(count + 1);
    const [first] = keys.splice(count);
    if (first === undefined) continue;
    await fill(keys.map((key) => fileOf(path, key)));
    const capacityBytes = await diskBytesIn(path);
    const bounds = { capacityBytes, watermark: { high: 1, low: 0.9 } };
    for (const isKnown of [true, false]) {
      if (isKnown) await closeCounted(await openFileStore(path, { bounds, shards: 1 }));
      else await Deno.remove(join(path, "tmp", "usage.ledger"));
      await using store = await openFileStore(path, { bounds, shards: 1 });
      const object = testObject(first, OBJECT_BYTES);
      const medianMs = await time(() => store.store([object], { signal }));
      const account = isKnown ? "" : " without an account";
      const operation = `first store into a full directory${account}, ${count} objects`;
      rows.push({ device: "fs", operation, objectBytes: OBJECT_BYTES, medianMs });
    }
    await Deno.remove(path, { recursive: true });
  }
  return rows;
}

async function fill(paths: readonly string[]): Promise<void> {
  const bytes = new Uint8Array(OBJECT_BYTES);
  for (const path of new Set(paths.map(dirname))) await Deno.mkdir(path, { recursive: true });
  for (const path of paths) await Deno.writeFile(path, bytes);
}

/** Waits until a directory is counted, and closes it. */
async function closeCounted(store: FileStore): Promise<void> {
  while ((store.reportStatus()["space"] as DiskSpaceStatus).usedBytes === undefined) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await store[Symbol.asyncDispose]();
}
