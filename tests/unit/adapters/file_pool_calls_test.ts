import { assertEquals } from "@std/assert";
import { testKeys } from "../../support/objects.ts";
import { tempDirectory } from "../../support/temp_directory.ts";
import { waitUntil } from "../../support/wait_until.ts";
import { load, openPool, store } from "./file_pool_tools.ts";

/** Has reads and writes of all files wait, as those of a disk do that answers no more. */
function holdReadsAndWrites(): Disposable & { readonly held: number } {
  const { read, write } = Deno.FsFile.prototype;
  const { promise, resolve } = Promise.withResolvers<void>();
  let held = 0;
  const hold = async (): Promise<void> => {
    held++;
    await promise;
    held--;
  };
  Deno.FsFile.prototype.read = async function (into) {
    await hold();
    return await read.call(this, into);
  };
  Deno.FsFile.prototype.write = async function (bytes) {
    await hold();
    return await write.call(this, bytes);
  };
  return {
    get held() {
      return held;
    },
    [Symbol.dispose]() {
      Object.assign(Deno.FsFile.prototype, { read, write });
      resolve();
    },
  };
}

/** Waits until a number is the same for a while. */
async function settled(count: () => number): Promise<number> {
  let last = NaN;
  let since = 0;
  await waitUntil(() => {
    since = last === count() ? since + 1 : 0;
    last = count();
    return since === 10;
  });
  return last;
}

Deno.test("file_pool: a disk that hangs holds a share of the calls, also of several pools", async () => {
  await using directory = await tempDirectory();
  await using stack = new AsyncDisposableStack();
  const keys = testKeys(40);
  const [old, fresh] = [keys.slice(0, 20), keys.slice(20)];
  const pools = await Promise.all(["a", "b", "c"].map(async (name) => {
    return stack.use(await openPool(`${directory.path}/${name}`, { slots: 40 }));
  }));
  for (const pool of pools) assertEquals(await store(pool, old), "1".repeat(20));
  const work: Promise<string>[] = [];
  {
    using disk = holdReadsAndWrites();
    for (const [i, most] of [10, 20, 24].entries()) {
      const pool = pools[i] as (typeof pools)[number];
      work.push(load(pool, old), store(pool, fresh));
      assertEquals(await settled(() => disk.held), most, `${i + 1} pools`);
    }
  }
  assertEquals(await Promise.all(work), Array(6).fill("1".repeat(20)));
});
