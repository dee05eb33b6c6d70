import { step, type Steps } from "./steps.ts";

/** What is synced before a file counts as published: nothing, its data, or also its name. */
export type Durability = "none" | "file" | "full";

/** A file that is written sequentially, one call at a time. */
export interface TargetFile extends Disposable {
  /** Appends bytes, which must stay valid until {@linkcode flush}; returns the number accepted. */
  write(bytes: Uint8Array): number | Promise<number>;
  /**
   * Passes all written bytes to the operating system, and creates the file if it was not before;
   * left out if each write does so.
   */
  flush?(): void | Promise<void>;
  /** Makes the bytes survive a power cut. */
  syncData(): void | Promise<void>;
}

/** The file operations that publishing needs. */
export interface PublishingFiles {
  /** Creates a file that must not exist. */
  create(path: string, mode: number): TargetFile | Promise<TargetFile>;
  /** Sets the file mode. */
  chmod(path: string, mode: number): void | Promise<void>;
  /** Renames a file; replaces an existing one. */
  rename(from: string, to: string): void | Promise<void>;
  remove(path: string): void | Promise<void>;
  /** Makes the names in a directory survive a power cut. */
  syncDirectory(path: string): void | Promise<void>;
}

/** Options of {@linkcode publishFile}. */
export interface PublishOptions {
  readonly files: PublishingFiles;
  /** Content of the file. */
  readonly parts: readonly Uint8Array[];
  /** A path on the same file system that no other writer uses. */
  readonly tmpPath: string;
  /** The path that readers look up: the directory, `/`, and the name. */
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
export function* publishFile(options: PublishOptions): Steps<void> {
  const { files, parts, tmpPath, finalPath, mode, durability } = options;
  const file = yield* step(() => files.create(tmpPath, mode));
  try {
    try {
      for (const part of parts) {
        for (let done = 0; done < part.byteLength;) {
          const rest = done === 0 ? part : part.subarray(done);
          const written = yield* step(() => file.write(rest));
          // A file system that writes no bytes without an error would loop forever.
          if (written === 0) throw new Deno.errors.WriteZero("The file took no more bytes");
          done += written;
        }
      }
      if (file.flush !== undefined) yield* step(() => file.flush?.());
      if (durability !== "none") yield* step(() => file.syncData());
    } finally {
      file[Symbol.dispose]();
    }
    // The umask of the process may have removed group permissions.
    if ((mode & 0o020) !== 0) yield* step(() => files.chmod(tmpPath, mode));
    yield* step(() => files.rename(tmpPath, finalPath));
  } catch (error) {
    try {
      yield* step(() => files.remove(tmpPath));
    } catch {
      // It may not exist; the error above says more.
    }
    throw error;
  }
  options.onPublished?.();
  if (durability !== "full") return;
  const directory = finalPath.slice(0, finalPath.lastIndexOf("/"));
  yield* step(() => files.syncDirectory(directory));
}
