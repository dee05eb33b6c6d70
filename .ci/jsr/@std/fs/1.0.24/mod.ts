// The part of @std/fs that this project uses, on Deno's own calls. See ../../../README.md.
import { basename, fromFileUrl, join, normalize } from "jsr:@std/path@^1.1.6";

/** What {@linkcode exists} asks of the path besides being there. */
export interface ExistsOptions {
  isDirectory?: boolean;
  isFile?: boolean;
}

/** Which entries {@linkcode walk} visits and yields. */
export interface WalkOptions {
  maxDepth?: number;
  includeFiles?: boolean;
  includeDirs?: boolean;
  includeSymlinks?: boolean;
  followSymlinks?: boolean;
  exts?: string[];
  match?: RegExp[];
  skip?: RegExp[];
}

/** A directory entry with its path, which starts with the root of the walk. */
export interface WalkEntry extends Deno.DirEntry {
  path: string;
}

/** Whether `path` is there and of the kind asked for; symbolic links are followed. */
export async function exists(path: string | URL, options: ExistsOptions = {}): Promise<boolean> {
  if (options.isDirectory && options.isFile) {
    throw new TypeError("A path cannot be a file and a directory at once");
  }
  try {
    const info = await Deno.stat(path);
    return (info.isDirectory || !options.isDirectory) && (info.isFile || !options.isFile);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    if (error instanceof Deno.errors.PermissionDenied) return true;
    throw error;
  }
}

/** Creates the directory and its parents where they are missing. */
export async function ensureDir(dir: string | URL): Promise<void> {
  if (!await exists(dir, { isDirectory: true })) await Deno.mkdir(dir, { recursive: true });
}

/** Removes everything inside the directory, or creates it where it is missing. */
export async function emptyDir(dir: string | URL): Promise<void> {
  const root = dir instanceof URL ? fromFileUrl(dir) : dir;
  await ensureDir(root);
  const entries = await Array.fromAsync(Deno.readDir(root));
  await Promise.all(entries.map(({ name }) => Deno.remove(join(root, name), { recursive: true })));
}

/** Yields the root and everything below it, a directory before what it holds. */
export async function* walk(
  root: string | URL,
  options: WalkOptions = {},
): AsyncIterableIterator<WalkEntry> {
  const { maxDepth = Infinity, includeFiles = true, includeDirs = true } = options;
  const { includeSymlinks = true, followSymlinks = false } = options;
  const top = root instanceof URL ? fromFileUrl(root) : root;
  if (maxDepth < 0) return;
  if (includeDirs && wanted(top, options)) {
    const { isFile, isDirectory, isSymlink } = await Deno.stat(top);
    const path = normalize(top);
    yield { path, name: basename(path), isFile, isDirectory, isSymlink };
  }
  if (maxDepth < 1 || matches(top, options.skip)) return;
  for await (const entry of Deno.readDir(top)) {
    let path = join(top, entry.name);
    let { isDirectory } = entry;
    if (entry.isSymlink) {
      if (!followSymlinks) {
        if (includeSymlinks && wanted(path, options)) yield { ...entry, path };
        continue;
      }
      path = await Deno.realPath(path);
      ({ isDirectory } = await Deno.lstat(path));
    }
    if (isDirectory) yield* walk(path, { ...options, maxDepth: maxDepth - 1 });
    else if (includeFiles && wanted(path, options)) yield { ...entry, path };
  }
}

function wanted(path: string, { exts, match, skip }: WalkOptions): boolean {
  return (exts?.some((ext) => path.endsWith(ext.startsWith(".") ? ext : `.${ext}`)) ?? true) &&
    (match === undefined || matches(path, match)) && !matches(path, skip);
}

function matches(path: string, patterns: RegExp[] = []): boolean {
  return patterns.some((pattern) => path.search(pattern) >= 0);
}
