import { diskBytesOf, sizeOf, usedAtOf } from "../_shared/file_info.ts";
import type { FileSystem } from "./file_system.ts";
import type { NamedObject, ObjectPaths } from "./object_paths.ts";

/** Files per batch. */
const BATCH = 256;
/** Max concurrent calls: evictions need threads too. */
const CONCURRENCY = 2;

/** A file that holds an object. */
export interface ObjectFile {
  readonly path: string;
  /** The object, as far as its name tells. */
  readonly object: Exclude<NamedObject, null>;
  /** Size of the file, in bytes. */
  readonly size: number;
  /** Bytes that the file takes on disk. */
  readonly diskBytes: number;
  /** Time of the last write or use, in milliseconds since 1970; 0 if unknown. */
  readonly usedAt: number;
}

/** Iterates over the object files, in batches and in no particular order. */
export async function* walkObjects(
  files: FileSystem,
  paths: ObjectPaths,
  signal: AbortSignal,
): AsyncGenerator<ObjectFile[], void> {
  for await (const directory of objectDirectories(files, paths)) {
    let batch: { path: string; object: Exclude<NamedObject, null> }[] = [];
    for await (const { name, isFile } of entriesOf(files, directory)) {
      if (signal.aborted) return;
      const object = isFile ? paths.objectNamed(directory, name) : null;
      if (object === null) continue;
      batch.push({ path: `${directory}/${name}`, object });
      if (batch.length < BATCH) continue;
      yield await look(files, batch);
      batch = [];
    }
    if (batch.length > 0) yield await look(files, batch);
  }
}

/** Iterates over the directories that hold objects. */
export function objectDirectories(files: FileSystem, paths: ObjectPaths): AsyncIterable<string> {
  return walkShards(files, paths, paths.basePath, 0);
}

/** Iterates over the entries of a directory; none if it does not exist. */
export async function* entriesOf(
  files: FileSystem,
  path: string,
): AsyncGenerator<Deno.DirEntry, void> {
  try {
    yield* files.readDir(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function* walkShards(
  files: FileSystem,
  paths: ObjectPaths,
  directory: string,
  level: number,
): AsyncGenerator<string, void> {
  if (level === paths.levels) {
    yield directory;
    return;
  }
  for await (const { name, isDirectory } of entriesOf(files, directory)) {
    if (!isDirectory || !paths.isShard(level, name)) continue;
    yield* walkShards(files, paths, `${directory}/${name}`, level + 1);
  }
}

async function look(
  files: FileSystem,
  batch: readonly { path: string; object: Exclude<NamedObject, null> }[],
): Promise<ObjectFile[]> {
  const found: ObjectFile[] = [];
  let next = 0;
  const run = async (): Promise<void> => {
    for (let file = batch[next++]; file !== undefined; file = batch[next++]) {
      try {
        const info = await files.lstat(file.path);
        if (!info.isFile) continue;
        found.push({
          ...file,
          size: sizeOf(info),
          diskBytes: diskBytesOf(info),
          usedAt: usedAtOf(info),
        });
      } catch (error) {
        // Another process may have removed the file meanwhile.
        if (!(error instanceof Deno.errors.NotFound)) throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, run));
  return found;
}
