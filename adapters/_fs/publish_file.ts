import { dirname } from "@std/path";

const FILE_MODE = 0o600;

/** What to publish, where. */
export interface PublishOptions {
  /** The bytes of the file. */
  readonly parts: readonly Uint8Array[];
  /** A name that no other writer uses, on the same file system. */
  readonly tmpPath: string;
  /** The name under which readers look for it. */
  readonly finalPath: string;
  /** What to sync. */
  readonly durability: "none" | "file" | "full";
}

/**
 * Makes a file appear under its name with all of its bytes, or not at all: written under a
 * temporary name that is created exclusively, then renamed. Whatever fails, the temporary file is
 * removed.
 */
export async function publishFile(options: PublishOptions): Promise<void> {
  const { parts, tmpPath, finalPath, durability } = options;
  const file = await Deno.open(tmpPath, { write: true, createNew: true, mode: FILE_MODE });
  try {
    try {
      for (const part of parts) {
        for (let done = 0; done < part.byteLength;) done += await file.write(part.subarray(done));
      }
      if (durability !== "none") await file.syncData();
    } finally {
      file.close();
    }
    await Deno.rename(tmpPath, finalPath);
  } catch (error) {
    await Deno.remove(tmpPath).catch(() => {});
    throw error;
  }
  if (durability === "full") await syncDirectory(dirname(finalPath));
}

/** Makes the names in a directory survive a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  using directory = await Deno.open(path, { read: true });
  await directory.sync();
}
