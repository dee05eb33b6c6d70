import { notAFile } from "./errno.ts";

/** A small file that only one holder in all processes has open. */
export interface LockedFile extends Disposable {
  /** The content; empty if it exceeds `maxBytes`, because then another program wrote it. */
  read(maxBytes: number): Promise<Uint8Array>;
  /** Replaces the content. */
  write(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
}

/**
 * Opens a file exclusively, on Deno's threads; creates it if `create` is set.
 *
 * @returns `undefined` if another holder has it.
 */
export async function lockFile(
  path: string,
  { create, mode }: { readonly create: boolean; readonly mode: number },
): Promise<LockedFile | undefined> {
  const before = create ? await statusAt(path) : await Deno.lstat(path);
  // A link could point anywhere.
  if (before?.isFile === false) throw notAFile(path);
  // Exclusive creation never follows a link created meanwhile. The loser of a race tries again.
  const how = before === undefined ? { createNew: true, mode } : {};
  const raced = before === undefined ? Deno.errors.AlreadyExists : Deno.errors.NotFound;
  const file = await unless(raced, Deno.open(path, { read: true, write: true, ...how }));
  if (file === undefined) return undefined;
  try {
    // The umask of the process may have removed group permissions.
    if (before === undefined && (mode & 0o070) !== 0) {
      await Deno.chmod(path, mode).catch(() => {});
    }
    if (await file.tryLock(true)) {
      const [held, named] = await Promise.all([file.stat(), statusAt(path)]);
      if (named?.isFile === false) throw notAFile(path);
      // If the file was removed meanwhile, other processes lock its successor.
      if (held.ino === named?.ino && held.dev === named.dev) return lockedFile(file, held.size);
    }
  } catch (error) {
    file.close();
    throw error;
  }
  file.close();
  return undefined;
}

function lockedFile(file: Deno.FsFile, size: number): LockedFile {
  return {
    async read(maxBytes) {
      const bytes = new Uint8Array(size > maxBytes ? 0 : size);
      await file.seek(0, Deno.SeekMode.Start);
      let done = 0;
      while (done < bytes.byteLength) {
        const count = await file.read(bytes.subarray(done));
        if (count === null) break;
        done += count;
      }
      return bytes.subarray(0, done);
    },
    async write(bytes) {
      await file.seek(0, Deno.SeekMode.Start);
      for (let done = 0; done < bytes.byteLength;) done += await file.write(bytes.subarray(done));
      await file.truncate(bytes.byteLength);
    },
    [Symbol.dispose]: () => file.close(),
  };
}

function statusAt(path: string): Promise<Deno.FileInfo | undefined> {
  return unless(Deno.errors.NotFound, Deno.lstat(path));
}

/** The result of `work`; `undefined` if it fails with an error of this class. */
async function unless<Value>(
  expected: new (message: string) => Error,
  work: Promise<Value>,
): Promise<Value | undefined> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof expected) return undefined;
    throw error;
  }
}
