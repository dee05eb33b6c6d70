import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { ConfigError } from "../../../src/adapter/contract.ts";
import { runChild } from "../../support/child.ts";
import { openFs } from "../../support/fs_adapter.ts";
import { type TempDirectory, tempDirectory } from "../../support/temp_directory.ts";
import { openPool } from "./file_pool_tools.ts";

/** A directory of another user, writable only because the test runs as root. */
async function foreignDirectory(): Promise<TempDirectory> {
  if (Deno.uid() !== 0) {
    return { path: "/usr", [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  const directory = await tempDirectory();
  await Deno.chown(directory.path, 12_345, 12_345);
  return directory;
}

const openers = [
  ["fs", (path: string, extra = {}) => openFs({ base_path: path, ...extra }), "base_path"],
  [
    "file_pool",
    (path: string, extra = {}) => openPool(path, { params: { slot_bytes: 4096, ...extra } }),
    "backend_params.file_path",
  ],
] as const;

for (const [type, open, key] of openers) {
  Deno.test(`${type}: a directory of another user is refused, and the error names the option`, async () => {
    await using directory = await foreignDirectory();
    const error = await assertRejects(() => open(directory.path), ConfigError);
    assertEquals(error.key, key);
    assertStringIncludes(error.expected, "allow_foreign_owner: true");
    assertStringIncludes(String(error.received), "belongs to user");
    if (Deno.uid() !== 0) return;
    assertEquals(await Array.fromAsync(Deno.readDir(directory.path)), []);
    await using _adapter = await open(directory.path, { allow_foreign_owner: true });
  });
}

Deno.test("without permission to read the uid, a new file shows the owner", async () => {
  await using foreign = await foreignDirectory();
  await using own = await tempDirectory();
  const said = await runChild(new URL("./fs_try.ts", import.meta.url), {
    permissions: ["--no-prompt", "--allow-read", "--allow-write", "--allow-env"],
    args: [foreign.path, own.path, join(own.path, "new")],
  });
  assertEquals(said, ["base_path", "open", "open"]);
  const left = await Array.fromAsync(Deno.readDir(own.path), ({ name }) => name);
  assertEquals(left.filter((name) => name !== "tmp"), ["new"]);
});

Deno.test("a directory that Deno does not let the process use is a ConfigError", async () => {
  const path = `/dev/shm/kvtier-${crypto.randomUUID()}`;
  const said = await runChild(new URL("./fs_try.ts", import.meta.url), {
    permissions: ["--no-prompt", "--allow-read", "--allow-write", "--allow-env"],
    args: [path],
  });
  assertEquals(said, ["base_path"]);
});
