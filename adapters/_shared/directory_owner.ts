import { errnoOf, isFull } from "./errno.ts";

/** What a directory has to be, in a message. */
export const OWN_DIRECTORY =
  "a directory of the user that this process runs as, or allow_foreign_owner: true where another " +
  "user made it (containers, NFS, a directory of LMCache)";

/**
 * Compares the owner of a directory with the user that this process makes files as: the owner can
 * read and replace everything in it.
 *
 * Uses `--allow-sys=uid` where that is granted, and makes a file in the directory for a moment
 * where it is not.
 *
 * @param path The directory.
 * @param uid Its owner; `null` where the operating system has none.
 * @returns What is wrong, or `undefined`.
 */
export async function foreignOwner(path: string, uid: number | null): Promise<string | undefined> {
  if (uid === null) return undefined;
  const { state } = await Deno.permissions.query({ name: "sys", kind: "uid" });
  try {
    const own = state === "granted" ? Deno.uid() : await ownerOfNewFile(path);
    return own === null || own === uid ? undefined : `${path}, which belongs to user ${uid}`;
  } catch (error) {
    // A disk that is full or read-only now says nothing, and may be another one later.
    if (isFull(error) || errnoOf(error) === "EROFS") return undefined;
    return `${path} of user ${uid}, and neither --allow-sys=uid nor a directory that can be ` +
      "written to, which would tell whether this process runs as that user";
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
