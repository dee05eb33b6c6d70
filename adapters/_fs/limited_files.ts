import type { CallPurpose, OsCalls } from "../_shared/os_calls.ts";
import type { FileSystem, ReadableFile } from "./file_system.ts";

/**
 * File operations, each of which is one call within the thread limits of an adapter. Waiting ends
 * when `signal` aborts, except for removals, which clean up. Objects are stored and loaded in one
 * call each, without these operations.
 */
export function limitedFiles(
  files: FileSystem,
  calls: OsCalls,
  purpose: CallPurpose,
  signal?: AbortSignal,
): FileSystem {
  const limited =
    <Args extends unknown[], Value>(call: (...args: Args) => Promise<Value>) =>
    (...args: Args): Promise<Value> => calls.run(purpose, signal, () => call(...args));
  const create = limited(files.create);
  const open = limited(files.open);
  const lock = limited(files.lock);
  return {
    async create(path, mode) {
      const file = await create(path, mode);
      return {
        write: limited((bytes) => file.write(bytes)),
        flush: limited(async () => await file.flush?.()),
        syncData: limited(() => file.syncData()),
        [Symbol.dispose]: () => file[Symbol.dispose](),
      };
    },
    async open(path, maxBytes) {
      const file = await open(path, maxBytes);
      const read: ReadableFile["read"] = limited((into, position) => file.read(into, position));
      return {
        read,
        endsAt: (position) => file.endsAt(position),
        [Symbol.dispose]: () => file[Symbol.dispose](),
      };
    },
    async lock(path, options) {
      const file = await lock(path, options);
      return file && {
        read: limited((maxBytes) => file.read(maxBytes)),
        write: limited((bytes) => file.write(bytes)),
        [Symbol.dispose]: () => file[Symbol.dispose](),
      };
    },
    async *readDir(path) {
      const entries = files.readDir(path)[Symbol.asyncIterator]();
      const first = limited(() => entries.next());
      try {
        // Deno reads the whole directory with the first entry.
        let next = await first();
        while (next.done !== true) {
          yield next.value;
          next = await entries.next();
        }
      } finally {
        await entries.return?.();
      }
    },
    remove: (path) => calls.run(purpose, undefined, () => files.remove(path)),
    exists: limited(files.exists),
    lstat: limited(files.lstat),
    mkdir: limited(files.mkdir),
    rename: limited(files.rename),
    touch: limited(files.touch),
    chmod: limited(files.chmod),
    syncDirectory: limited(files.syncDirectory),
    room: limited(files.room),
  };
}
