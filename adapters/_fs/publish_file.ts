import { dirname } from "@std/path";
import type { FileSystem } from "./file_system.ts";

/** What is synced before a file counts as published: nothing, its data, or also its name. */
export type Durability = "none" | "file" | "full";

/** Options of {@linkcode publishFile}. */
export interface PublishOptions {
  readonly files: FileSystem;
  /** Content of the file. */
  readonly parts: readonly Uint8Array<ArrayBuffer>[];
  /** A path on the same file system that no other writer uses. */
  readonly tmpPath: string;
  /** The path that readers look up. */
  readonly finalPath: string;
  /** File mode. */
  readonly mode: number;
  readonly durability: Durability;
  /** Called once the file has its name, even if that may not survive a power cut. */
  readonly onPublished?: () => void;
}

/**
 * Publishes a file atomically: writes it under a temporary name that is created exclusively, then
 * renames it. On failure, the temporary file is removed.
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
          // A file system that writes no bytes without an error would loop forever.
          if (written === 0) throw new Deno.errors.WriteZero("The file took no more bytes");
          done += written;
        }
      }
      await file.flush?.();
      if (durability !== "none") await file.syncData();
    } finally {
      file[Symbol.dispose]();
    }
    // The umask of the process may have removed group permissions.
    if ((mode & 0o020) !== 0) await files.chmod(tmpPath, mode);
    await files.rename(tmpPath, finalPath);
  } catch (error) {
    await files.remove(tmpPath).catch(() => {});
    throw error;
  }
  options.onPublished?.();
  if (durability === "full") await files.syncDirectory(dirname(finalPath));
}
