import { errnoOf, isFull } from "./errno.ts";

/** The requirement on the owner of a directory, for error messages. */
export const OWN_DIRECTORY =
  "a directory owned by the user that this process runs as, or allow_foreign_owner: true if " +
  "another user created it (containers, NFS, a directory of LMCache)";

/**
 * Compares the owner of a directory with the user that this process creates files as. The owner can
 * read and replace everything in it.
 *
 * Uses `--allow-sys=uid` if granted; otherwise creates and removes a file in the directory.
 *
 * @param path The directory.
 * @param uid Its owner; `null` on operating systems without owners.
 * @returns Description of the foreign owner, or `undefined` if there is none.
 */
export async function foreignOwner(path: string, uid: number | null): Promise<string | undefined> {
  if (uid === null) return undefined;
  const { state } = await Deno.permissions.query({ name: "sys", kind: "uid" });
  try {
    const own = state === "granted" ? Deno.uid() : await ownerOfNewFile(path);
    return own === null || own === uid ? undefined : `${path}, which belongs to user ${uid}`;
  } catch (error) {
    // On a full or read-only disk the owner is unknown, and that may change: not an error.
    if (isFull(error) || errnoOf(error) === "EROFS") return undefined;
    return `${path} of user ${uid}; without --allow-sys=uid and without write access, it is ` +
      "unknown whether this process runs as that user";
  }
}

async function ownerOfNewFile(path: string): Promise<number | null> {
  const file = await Deno.makeTempFile({ dir: path, prefix: "kvtier-", suffix: ".tmp" });
  try {
    return (await Deno.lstat(file)).uid;
  } finally {
    await Deno.remove(file);
  }
}
