import { errnoOf } from "../_shared/errno.ts";
import type { LockedFile } from "../_shared/locked_file.ts";
import type { FileSystem } from "./file_system.ts";

/**
 * Opens a file of this adapter exclusively; creates it if needed. A link or other non-file in its
 * place is removed, but never its target.
 *
 * @returns `undefined` if another holder has it.
 * @throws If it cannot be created, or a non-empty directory has its name.
 */
export async function lockOwn(
  files: FileSystem,
  path: string,
  mode: number,
): Promise<LockedFile | undefined> {
  const lock = () => files.lock(path, { create: true, mode });
  try {
    return await lock();
  } catch (error) {
    if (errnoOf(error) !== "ELOOP") throw error;
  }
  try {
    // Another process may have replaced it by now. If it does so between these two calls, its file
    // is removed and created again.
    if (!(await files.lstat(path)).isFile) await files.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return await lock();
}
