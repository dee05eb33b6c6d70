import { errnoOf } from "../_shared/errno.ts";
import type { FileSystem, LockedFile } from "./file_system.ts";

/**
 * Opens a file of this adapter for this holder alone, and makes it if it is not there. What lies in
 * its place and is no file, such as a link, is not ours: it is removed, never what it leads to.
 *
 * @returns `undefined` if somebody else has it.
 * @throws If it cannot be made, or a directory with something in it lies in its place.
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
    // is removed, and made once more.
    if (!(await files.lstat(path)).isFile) await files.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return await lock();
}
