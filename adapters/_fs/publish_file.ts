import { dirname } from "@std/path";
import type { FileSystem } from "./file_system.ts";

/** What is synced before a file counts as published: nothing, its data, its name too. */
export type Durability = "none" | "file" | "full";

/** What to publish, where. */
export interface PublishOptions {
  /** What does it. */
  readonly files: FileSystem;
  /** The bytes of the file. */
  readonly parts: readonly Uint8Array<ArrayBuffer>[];
  /** A name that no other writer uses, on the same file system. */
  readonly tmpPath: string;
  /** The name under which readers look for it. */
  readonly finalPath: string;
  /** Permissions of the file. */
  readonly mode: number;
  /** What to sync. */
  readonly durability: Durability;
  /** Told when the file has its name, even if that may not survive a power cut. */
  readonly onPublished?: () => void;
}

/**
 * Makes a file appear under its name with all of its bytes, or not at all: written under a
 * temporary name that is created exclusively, then renamed. Whatever fails, the temporary file is
 * removed.
 */
export async function publishFile(options: PublishOptions): Promise<void> {
  const { files, parts, tmpPath, finalPath, mode, durability } = options;
  const file = await files.create(tmpPath, mode);
  try {
    try {
      for (const part of parts) {
        for (let done = 0; done < part.byteLength;) {
          const rest = done === 0 ? part : part.subarray(done);
          const written = await file.write(rest);
          // A file system that takes nothing and says nothing would be asked for ever.
          if (written === 0) throw new Deno.errors.WriteZero("The file took no more bytes");
          done += written;
        }
      }
      await file.flush();
      if (durability !== "none") await file.syncData();
    } finally {
      file[Symbol.dispose]();
    }
    // What the group may do, the process may have been told to deny (umask).
    if ((mode & 0o020) !== 0) await files.chmod(tmpPath, mode);
    await files.rename(tmpPath, finalPath);
  } catch (error) {
    await files.remove(tmpPath).catch(() => {});
    throw error;
  }
  options.onPublished?.();
  if (durability === "full") await files.syncDirectory(dirname(finalPath));
}
