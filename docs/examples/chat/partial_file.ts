import { basename, dirname, join } from "@std/path";

/**
 * A file being downloaded, under a name of its own: two processes never write to the same one. Its
 * lock ends with the process, so an unlocked partial file is an abandoned one.
 */
export class PartialFile implements Disposable {
  /** Its path. */
  readonly path: string;
  /** Size in bytes when it was opened. */
  readonly byteLength: number;
  readonly #file: Deno.FsFile;

  private constructor(path: string, byteLength: number, file: Deno.FsFile) {
    this.path = path;
    this.byteLength = byteLength;
    this.#file = file;
  }

  /** Takes over an abandoned partial file of `path` and removes the others, or creates one. */
  static async open(path: string): Promise<PartialFile> {
    let taken: PartialFile | undefined;
    for await (const { name } of Deno.readDir(dirname(path))) {
      if (!name.startsWith(`${basename(path)}.`) || !name.endsWith(".part")) continue;
      const part = await PartialFile.#take(join(dirname(path), name), path);
      if (taken !== undefined) await part?.remove();
      else taken = part;
    }
    if (taken !== undefined) return taken;
    for (;;) {
      const own = ownName(path);
      const file = await Deno.open(own, { write: true, createNew: true });
      // Until it is locked, it looks abandoned: another download may have taken it over.
      if (await file.tryLock(true) && await isAt(own, file)) return new PartialFile(own, 0, file);
      file.close();
    }
  }

  /** Discards the bytes after `byteLength`; the next write continues there. */
  async truncate(byteLength: number): Promise<void> {
    await this.#file.truncate(byteLength);
    await this.#file.seek(byteLength, Deno.SeekMode.Start);
  }

  /** Appends bytes. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.byteLength;) {
      done += await this.#file.write(bytes.subarray(done));
    }
  }

  /** Closes and removes the file. */
  async remove(): Promise<void> {
    this[Symbol.dispose]();
    await Deno.remove(this.path);
  }

  /** Closes the file, which others may then take over. */
  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }

  /** Renames an abandoned file to an own name; `undefined` if another process uses it. */
  static async #take(abandoned: string, path: string): Promise<PartialFile | undefined> {
    const own = ownName(path);
    let file: Deno.FsFile | undefined;
    try {
      file = await Deno.open(abandoned, { read: true, write: true });
      if (await file.tryLock(true)) {
        await Deno.rename(abandoned, own);
        return new PartialFile(own, (await file.stat()).size, file);
      }
    } catch (error) {
      // Another process took it over or finished it.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    file?.close();
    return undefined;
  }
}

/** Whether an open file still has a path. */
async function isAt(path: string, file: Deno.FsFile): Promise<boolean> {
  const named = await Deno.lstat(path).catch(() => undefined);
  return named !== undefined && named.ino === (await file.stat()).ino;
}

function ownName(path: string): string {
  return `${path}.${crypto.randomUUID()}.part`;
}
