import { assertEquals, assertGreater } from "@std/assert";
import { runChild } from "../support/child.ts";
import { tempDirectory } from "../support/temp_directory.ts";
import { inNewNamespace } from "./namespace.ts";

Deno.test("on a full disk stores fail without leaving files behind; they resume with free space", async (t) => {
  await using directory = await tempDirectory();
  const shell = await inNewNamespace(
    `mount -t tmpfs -o size=4m tmpfs "${directory.path}" && exec "$@"`,
  );
  if (shell === undefined) {
    await t.step("file systems cannot be mounted on this host: not run", () => {});
    return;
  }
  const said = await runChild(new URL("./fill_disk.ts", import.meta.url), {
    args: [directory.path],
    shell,
  });
  const { stored } = said as { stored: number };
  assertGreater(stored, 0);
  assertEquals(said, {
    stored,
    hitsWhenFull: stored,
    leftWhenFull: [],
    full: {
      isHealthy: false,
      failedStores: 3,
      problem:
        "objects are refused because there is no room (the capacity or the disk is used up): " +
        "set eviction.eviction_policy to LRU, raise max_capacity_gb, or free the disk",
    },
    after: { storesAgain: true, loadsAgain: true, isHealthy: true },
  });
});
