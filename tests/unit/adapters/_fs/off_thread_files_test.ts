import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { OffThreadFiles } from "../../../../adapters/_fs/off_thread_files.ts";
import { hostFileSystem } from "../../../../adapters/_fs/file_system.ts";
import { tempDirectory } from "../../../support/temp_directory.ts";

Deno.test("a lock file is shared with the group, whatever the umask of the process", async () => {
  await using directory = await tempDirectory();
  await using stack = new AsyncDisposableStack();
  const offThread = stack.adopt(new OffThreadFiles(), (files) => files.close());
  const umask = Deno.umask(0o077);
  stack.defer(() => void Deno.umask(umask));
  for (const [name, files] of [["on", hostFileSystem], ["off", offThread.files]] as const) {
    const path = join(directory.path, name);
    using lock = await files.lock(path, { create: true, mode: 0o660 });
    assertEquals([lock !== undefined, (await Deno.stat(path)).mode], [true, 0o100660], name);
  }
});
