import * as nodeFs from "node:fs";
import { parentPort } from "node:worker_threads";
import { notAFile } from "./errno.ts";

/** A file operation for the worker. */
export type FileRequest =
  | { readonly op: "open"; readonly path: string; readonly flags: number; readonly mode?: number }
  | {
    readonly op: "read" | "write";
    readonly file: number;
    readonly buffer: SharedArrayBuffer;
    readonly from: number;
    readonly length: number;
    readonly position: number;
  }
  | { readonly op: "truncate"; readonly file: number; readonly length: number }
  | { readonly op: "sync" | "close"; readonly file: number }
  | { readonly op: "syncPath"; readonly path: string }
  | {
    readonly op: "lock";
    readonly path: string;
    readonly create: boolean;
    readonly mode: number;
  }
  | { readonly op: "readLocked"; readonly lock: number; readonly maxBytes: number }
  | { readonly op: "writeLocked"; readonly lock: number; readonly bytes: Uint8Array }
  | { readonly op: "unlock"; readonly lock: number };

/** The result: a file, lock or byte number, content, or an error. */
export type FileReply =
  | { readonly value: number; readonly bytes?: Uint8Array; readonly error?: undefined }
  | { readonly error: string; readonly code: string | undefined };

/** A request with the id that its reply carries. */
export interface NumberedRequest {
  /** Increases with each request. */
  readonly id: number;
  readonly request: FileRequest;
}

const locks = new Map<number, { readonly file: Deno.FsFile; readonly size: number }>();
let nextLock = 1;

function run(request: FileRequest): FileReply {
  switch (request.op) {
    case "open":
      return { value: nodeFs.openSync(request.path, request.flags, request.mode) };
    case "read": {
      const { file, buffer, from, length, position } = request;
      const into = new Uint8Array(buffer);
      return { value: nodeFs.readSync(file, into, from, length - from, position) };
    }
    case "write": {
      const { file, buffer, from, length, position } = request;
      const bytes = new Uint8Array(buffer);
      return { value: nodeFs.writeSync(file, bytes, from, length - from, position) };
    }
    case "truncate":
      nodeFs.ftruncateSync(request.file, request.length);
      return { value: 0 };
    case "sync":
      nodeFs.fdatasyncSync(request.file);
      return { value: 0 };
    case "close":
      nodeFs.closeSync(request.file);
      return { value: 0 };
    case "syncPath": {
      using file = Deno.openSync(request.path, { read: true });
      file.syncDataSync();
      return { value: 0 };
    }
    case "lock":
      return { value: lock(request.path, request.create, request.mode) };
    case "readLocked": {
      const { file, size } = lockOf(request.lock);
      const bytes = new Uint8Array(size > request.maxBytes ? 0 : size);
      file.seekSync(0, Deno.SeekMode.Start);
      let done = 0;
      for (let count: number | null = 1; count !== null && done < bytes.byteLength;) {
        count = file.readSync(bytes.subarray(done));
        done += count ?? 0;
      }
      return { value: done, bytes: bytes.subarray(0, done) };
    }
    case "writeLocked": {
      const { file } = lockOf(request.lock);
      file.seekSync(0, Deno.SeekMode.Start);
      for (let done = 0; done < request.bytes.byteLength;) {
        done += file.writeSync(request.bytes.subarray(done));
      }
      file.truncateSync(request.bytes.byteLength);
      return { value: request.bytes.byteLength };
    }
    case "unlock":
      lockOf(request.lock).file.close();
      locks.delete(request.lock);
      return { value: 0 };
  }
}

/** Locks a file that still has its name; returns 0 if another holder has the lock. */
function lock(path: string, create: boolean, mode: number): number {
  const before = statusAt(path);
  if (before === undefined && !create) throw new Deno.errors.NotFound(`${path} (os error 2)`);
  // A link could point anywhere.
  if (before?.isFile === false) throw notAFile(path);
  // Exclusive creation never follows a link created meanwhile. The loser of a race tries again.
  const how = before === undefined ? { createNew: true, mode } : {};
  const raced = before === undefined ? Deno.errors.AlreadyExists : Deno.errors.NotFound;
  let file: Deno.FsFile;
  try {
    file = Deno.openSync(path, { read: true, write: true, ...how });
  } catch (error) {
    if (error instanceof raced) return 0;
    throw error;
  }
  try {
    // The umask of the process may have removed group permissions.
    if (before === undefined && (mode & 0o070) !== 0) shareWithGroup(path, mode);
    if (file.tryLockSync(true)) {
      const held = file.statSync();
      const named = statusAt(path);
      if (named?.isFile === false) throw notAFile(path);
      // If the file was removed meanwhile, other processes lock its successor.
      if (held.ino === named?.ino && held.dev === named.dev) {
        locks.set(nextLock, { file, size: held.size });
        return nextLock++;
      }
    }
  } catch (error) {
    file.close();
    throw error;
  }
  file.close();
  return 0;
}

function shareWithGroup(path: string, mode: number): void {
  try {
    Deno.chmodSync(path, mode);
  } catch {
    // Some file systems have no modes.
  }
}

function statusAt(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function lockOf(number: number): { readonly file: Deno.FsFile; readonly size: number } {
  const lock = locks.get(number);
  if (lock === undefined) throw new Error(`No lock has the number ${number}`);
  return lock;
}

parentPort?.on("message", ({ id, request }: NumberedRequest) => {
  let reply: FileReply;
  try {
    reply = run(request);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : undefined;
    reply = { error: error instanceof Error ? error.message : String(error), code };
  }
  parentPort?.postMessage({ id, ...reply });
});
