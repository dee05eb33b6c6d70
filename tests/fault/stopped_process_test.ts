import { assertEquals, assertLessOrEqual, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { openFs, testObject } from "../support/fs_adapter.ts";
import { testKeys } from "../support/objects.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { accountOf, allocationIn } from "./lab/accounts.ts";
import { LabProgram } from "./lab/program.ts";

const CAPACITY = 100 * 4096;
const program = new URL("./hold_locks.ts", import.meta.url);
const { signal } = new AbortController();

Deno.test("a stopped process that holds all locks of a directory does not block stores", async () => {
  await using directory = await tempDirectory();
  const { path } = directory;
  await using stack = new AsyncDisposableStack();
  const adapter = stack.use(
    await openFs({ "base_path": path, "max_capacity_gb": CAPACITY / 2 ** 30 }),
  );
  const put = async (first: number): Promise<number> => {
    const objects = testKeys(8, first).map((key) => testObject(key));
    return (await adapter.store(objects, { signal })).stored.popcount();
  };
  assertEquals(await put(0), 8);
  const paths = ["usage.ledger", "eviction.lock"].map((name) => join(path, "tmp", name));
  const holder = stack.use(await LabProgram.start(program, { paths }));
  assertEquals(holder.lastLine, { held: 2 });
  holder.suspend();
  for (let i = 1; i < 40; i++) {
    assertEquals(await put(8 * i), 8, `${i}`);
    assertLessOrEqual(allocationIn(path).bytes, CAPACITY);
  }
  assertMatch(String(adapter.reportStatus?.()["problems"]), /cannot be locked/);
  await holder.kill();
  assertEquals(await put(10_000), 8);
  await stack.disposeAsync();
  const { used = 0 } = await accountOf(path) ?? {};
  assertLessOrEqual(allocationIn(path).bytes, used);
  assertLessOrEqual(used, CAPACITY);
});
