import { join } from "@std/path";
import type { AdapterObject } from "../../src/l2/adapter.ts";
import { isDirectRefused } from "../_shared/direct_access.ts";
import type { DirectIo } from "./direct_io.ts";
import { type FileHandle, FileHandles } from "./file_handles.ts";
import { type PoolFileSystem, writeAll } from "./pool_file.ts";
import { PAGE_BYTES, pagesFor, type PoolGeometry } from "./pool_geometry.ts";
import {
  decodeHeader,
  encodeFooter,
  encodeHeader,
  FOOTER_BYTES,
  isFooterOf,
  type ReadHeader,
  type SlotHeader,
} from "./slot_format.ts";

const ZEROS_BYTES = 4 * 2 ** 20;
const noBytes = new Uint8Array(PAGE_BYTES);

/** How the files of a pool are used. */
export interface SlotFilesOptions {
  /** How they are opened. */
  readonly files: PoolFileSystem;
  /** Where they are. */
  readonly directory: string;
  /** How they are laid out. */
  readonly geometry: PoolGeometry;
  /** Moves objects past the page cache; left out, everything goes through it. */
  readonly direct?: DirectIo | undefined;
  /** Told when the way past the page cache is refused after all; it is not taken again. */
  readonly onRefusal: (error: unknown) => void;
}

/** The files of a pool, slot by slot. */
export class SlotFiles implements Disposable {
  /** How they are laid out. */
  readonly geometry: PoolGeometry;
  readonly #handles: readonly FileHandles[];
  readonly #onRefusal: (error: unknown) => void;
  #direct: DirectIo | undefined;

  /** Opens nothing yet. */
  constructor({ files, directory, geometry, direct, onRefusal }: SlotFilesOptions) {
    this.geometry = geometry;
    this.#handles = poolFiles(directory, geometry).map((path) => new FileHandles(files, path));
    this.#direct = direct;
    this.#onRefusal = onRefusal;
  }

  /**
   * Writes an object into its slot: header, object, footer. Cut anywhere, header and footer do not
   * belong together, so that the slot counts as free.
   */
  async write(header: SlotHeader, { parts, byteLength }: AdapterObject): Promise<void> {
    const { file, offset } = this.geometry.placeOf(header.slot);
    const runs = contiguousRuns(parts);
    if (byteLength > this.geometry.slotBytes || sumOf(runs) !== byteLength) {
      throw new RangeError(`The parts must have ${byteLength} bytes: received ${sumOf(runs)}`);
    }
    await this.#use(file, async (handle) => {
      const checksum = encodeHeader(handle.page, header);
      // What is short goes with the footer: a write costs more than a copy of a page.
      const last = (runs.at(-1)?.byteLength ?? 0) <= PAGE_BYTES ? runs.pop() : undefined;
      const lastBytes = last?.byteLength ?? 0;
      const { end } = handle;
      if (last !== undefined) end.set(last);
      encodeFooter(end.subarray(lastBytes, lastBytes + FOOTER_BYTES), header, checksum);
      // Up to the end of a page, so that the system need not read what it is to keep of it.
      const padded = pagesFor(byteLength + FOOTER_BYTES) - (byteLength - lastBytes);
      end.fill(0, lastBytes + FOOTER_BYTES, padded);
      const pieces = [handle.page, ...runs, end.subarray(0, padded)];
      const { path } = this.#handlesOf(file);
      const isWritten = await this.#directly(async (direct) => {
        await direct.write(path, offset, pieces);
        return true;
      });
      if (isWritten) return;
      handle.seek(offset);
      for (const piece of pieces) await handle.write(piece);
    });
  }

  /** Fills parts from the beginning of the object in a slot; `false` if the file ends before. */
  async read(slot: number, parts: AdapterObject["parts"]): Promise<boolean> {
    const { file, offset } = this.geometry.placeOf(slot);
    const handles = this.#handlesOf(file);
    const runs = contiguousRuns(parts);
    const isRead = await this.#directly((direct) => {
      return direct.read(handles.path, offset + PAGE_BYTES, runs);
    });
    if (isRead !== undefined) return isRead;
    return await handles.use(async (handle) => {
      handle.seek(offset + PAGE_BYTES);
      for (const run of runs) if (!(await handle.read(run))) return false;
      return true;
    });
  }

  /** Makes a slot count as free, also after a crash. */
  async clear(slot: number): Promise<void> {
    const { file, offset } = this.geometry.placeOf(slot);
    await this.#use(file, async (handle) => {
      handle.seek(offset);
      await handle.write(noBytes);
    });
  }

  /** The header of the object in a slot; `undefined` if there is none, or not all of it. */
  async inspect(slot: number): Promise<ReadHeader | undefined> {
    const { file, offset } = this.geometry.placeOf(slot);
    const { slotBytes } = this.geometry;
    return await this.#use(file, async (handle) => {
      handle.seek(offset);
      if (!(await handle.read(handle.page))) return undefined;
      const header = decodeHeader(handle.page);
      const isOurs = header?.slot === slot && header.slotBytes === slotBytes &&
        header.byteLength <= slotBytes;
      if (!isOurs) return undefined;
      const footer = handle.end.subarray(0, FOOTER_BYTES);
      handle.seek(offset + PAGE_BYTES + header.byteLength);
      return await handle.read(footer) && isFooterOf(footer, header) ? header : undefined;
    });
  }

  /** Closes the files; none may be in use. */
  [Symbol.dispose](): void {
    for (const handles of this.#handles) handles[Symbol.dispose]();
  }

  /** Takes the way past the page cache; `undefined` if there is none, or no longer. */
  async #directly<T>(work: (direct: DirectIo) => Promise<T>): Promise<T | undefined> {
    const direct = this.#direct;
    if (direct === undefined) return undefined;
    try {
      return await work(direct);
    } catch (error) {
      if (!isDirectRefused(error)) throw error;
      // Others may have been under way, and be refused too.
      if (this.#direct !== undefined) this.#onRefusal(error);
      this.#direct = undefined;
      return undefined;
    }
  }

  #use<T>(file: number, work: (handle: FileHandle) => Promise<T>): Promise<T> {
    return this.#handlesOf(file).use(work);
  }

  #handlesOf(file: number): FileHandles {
    const handles = this.#handles[file];
    if (handles === undefined) throw new RangeError(`There is no file ${file}`);
    return handles;
  }
}

/** Paths of the files of a pool, in the order of their numbers. */
export function poolFiles(directory: string, { files }: PoolGeometry): string[] {
  return Array.from({ length: files }, (_, n) => join(directory, `slots-${n}.pool`));
}

/** Whether all files of a pool have their full length. */
export async function areComplete(directory: string, geometry: PoolGeometry): Promise<boolean> {
  // One after the other: each waits in a thread, of which there are few.
  for (const [file, path] of poolFiles(directory, geometry).entries()) {
    if (await sizeOf(path) !== geometry.fileBytes(file)) return false;
  }
  return true;
}

/**
 * Gives the files of a pool their full length, in zeros that are written, so that there is room
 * for every slot from then on. What is there of that length is left as it is.
 *
 * @returns Whether there was any file before.
 * @throws The error of the operating system, when the files made here have been removed.
 */
export async function layOutFiles(
  files: PoolFileSystem,
  directory: string,
  geometry: PoolGeometry,
  signal: AbortSignal,
): Promise<boolean> {
  const zeros = new Uint8Array(Math.min(ZEROS_BYTES, pagesFor(geometry.diskBytes)));
  const made: string[] = [];
  try {
    for (const [n, path] of poolFiles(directory, geometry).entries()) {
      const size = await sizeOf(path);
      const wanted = geometry.fileBytes(n);
      if (size === wanted) continue;
      if (size === undefined) made.push(path);
      const { strideBytes } = geometry;
      const begin = Math.min(wanted, Math.floor((size ?? 0) / strideBytes) * strideBytes);
      const file = await files.open(path, "make");
      try {
        await file.truncate(begin);
        for (let done = begin; done < wanted; done += zeros.byteLength) {
          signal.throwIfAborted();
          await writeAll(file, zeros.subarray(0, wanted - done), done);
        }
      } finally {
        file.close();
      }
    }
  } catch (error) {
    for (const path of made) await Deno.remove(path).catch(() => {});
    throw error;
  }
  return made.length < geometry.files;
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await Deno.lstat(path)).size;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** The bytes of parts in as few arrays as possible: what lies together is moved together. */
function contiguousRuns(parts: AdapterObject["parts"]): Uint8Array<ArrayBuffer>[] {
  const runs: Uint8Array<ArrayBuffer>[] = [];
  for (const part of parts) {
    if (part.byteLength === 0) continue;
    const last = runs.at(-1);
    if (last?.buffer === part.buffer && last.byteOffset + last.byteLength === part.byteOffset) {
      const { buffer, byteOffset, byteLength } = last;
      runs[runs.length - 1] = new Uint8Array(buffer, byteOffset, byteLength + part.byteLength);
    } else runs.push(part);
  }
  return runs;
}

function sumOf(runs: readonly Uint8Array[]): number {
  return runs.reduce((sum, { byteLength }) => sum + byteLength, 0);
}
