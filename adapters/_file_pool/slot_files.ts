import { join } from "@std/path";
import { lengthOfParts } from "../../src/base/byte_parts.ts";
import type { AdapterObject } from "../../src/adapter/contract.ts";
import type { DirectSwitch } from "../_shared/direct_switch.ts";
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

/** Options of {@linkcode SlotFiles}. */
export interface SlotFilesOptions {
  readonly files: PoolFileSystem;
  /** Directory of the pool. */
  readonly directory: string;
  /** Layout of the pool. */
  readonly geometry: PoolGeometry;
  /** Whether objects are read and written with direct I/O. */
  readonly direct: DirectSwitch<DirectIo>;
}

/** Reads and writes the slots of a pool. */
export class SlotFiles implements Disposable {
  /** Layout of the pool. */
  readonly geometry: PoolGeometry;
  readonly #handles: readonly FileHandles[];
  readonly #direct: DirectSwitch<DirectIo>;

  constructor({ files, directory, geometry, direct }: SlotFilesOptions) {
    this.geometry = geometry;
    this.#handles = poolFiles(directory, geometry).map((path) => new FileHandles(files, path));
    this.#direct = direct;
  }

  /**
   * Writes an object into its slot: header, object, footer. If interrupted, header and footer do
   * not match, and the slot counts as free.
   */
  async write(header: SlotHeader, { parts, byteLength }: AdapterObject): Promise<void> {
    const { file, offset } = this.geometry.placeOf(header.slot);
    const runs = contiguousRuns(parts);
    if (byteLength > this.geometry.slotBytes || lengthOfParts(runs) !== byteLength) {
      throw new RangeError(
        `The parts must have ${byteLength} bytes: received ${lengthOfParts(runs)}`,
      );
    }
    await this.#use(file, async (handle) => {
      const checksum = encodeHeader(handle.page, header);
      // A short last part is copied next to the footer: that costs less than another write.
      const last = (runs.at(-1)?.byteLength ?? 0) <= PAGE_BYTES ? runs.pop() : undefined;
      const lastBytes = last?.byteLength ?? 0;
      const { end } = handle;
      if (last !== undefined) end.set(last);
      encodeFooter(end.subarray(lastBytes, lastBytes + FOOTER_BYTES), header, checksum);
      // Padded to whole pages, so that the system need not read a page to modify it.
      const padded = pagesFor(byteLength + FOOTER_BYTES) - (byteLength - lastBytes);
      end.fill(0, lastBytes + FOOTER_BYTES, padded);
      const buffers = [handle.page, ...runs, end.subarray(0, padded)];
      const { path } = this.#handlesOf(file);
      const isWritten = await this.#direct.run(async (direct) => {
        await direct.write(path, offset, buffers);
        return true;
      });
      if (isWritten) return;
      handle.seek(offset);
      for (const buffer of buffers) await handle.write(buffer);
    });
  }

  /** Loads the object in a slot into parts; resolves to `false` if the file is too short. */
  async read(slot: number, parts: AdapterObject["parts"]): Promise<boolean> {
    const { file, offset } = this.geometry.placeOf(slot);
    const handles = this.#handlesOf(file);
    const runs = contiguousRuns(parts);
    const isRead = await this.#direct.run((direct) => {
      return direct.read(handles.path, offset + PAGE_BYTES, runs);
    });
    if (isRead !== undefined) return isRead;
    return await handles.use(async (handle) => {
      handle.seek(offset + PAGE_BYTES);
      for (const run of runs) if (!(await handle.read(run))) return false;
      return true;
    });
  }

  /** Marks a slot as free, also after a crash. */
  async clear(slot: number): Promise<void> {
    const { file, offset } = this.geometry.placeOf(slot);
    await this.#use(file, async (handle) => {
      handle.seek(offset);
      await handle.write(noBytes);
    });
  }

  /** Reads the header of the object in a slot; `undefined` if the slot is free or incomplete. */
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

  #use<T>(file: number, work: (handle: FileHandle) => Promise<T>): Promise<T> {
    return this.#handlesOf(file).use(work);
  }

  #handlesOf(file: number): FileHandles {
    const handles = this.#handles[file];
    if (handles === undefined) throw new RangeError(`There is no file ${file}`);
    return handles;
  }
}

/** Paths of the files of a pool. */
export function poolFiles(directory: string, { files }: PoolGeometry): string[] {
  return Array.from({ length: files }, (_, n) => join(directory, `slots-${n}.pool`));
}

/** Whether all files of a pool have their full length. */
export async function areComplete(directory: string, geometry: PoolGeometry): Promise<boolean> {
  // Sequential, because each call occupies one of few threads.
  for (const [file, path] of poolFiles(directory, geometry).entries()) {
    if (await sizeOf(path) !== geometry.fileBytes(file)) return false;
  }
  return true;
}

/**
 * Extends the files of a pool to their full length by writing zeros, so that every slot has space
 * on disk. Existing slots are kept.
 *
 * @returns Whether any file existed before.
 * @throws The error of the operating system, after the new files have been removed.
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

/** Merges adjacent parts of a buffer, so that each range is transferred at once. */
function contiguousRuns(parts: AdapterObject["parts"]): Uint8Array[] {
  const runs: Uint8Array[] = [];
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
