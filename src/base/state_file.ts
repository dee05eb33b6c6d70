import { systemRandom } from "./random.ts";

/** Random-access input of known size. */
export interface ByteSource extends Disposable {
  /** Size in bytes. */
  readonly byteLength: number;
  /**
   * Fills `into` with the bytes that start at `offset`.
   *
   * @throws {Error} If the input ends before `into` is full.
   */
  read(offset: number, into: Uint8Array<ArrayBuffer>): Promise<void>;
}

/** Sequential output that becomes visible as a whole or not at all. */
export interface ByteSink extends AsyncDisposable {
  /** Appends bytes. The buffer may be reused when the promise resolves. */
  write(bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Makes the output visible. Disposal without a commit discards it. */
  commit(): Promise<void>;
}

/**
 * Opens a file for reading. Requires `--allow-read` permission.
 *
 * @throws {Error} If it cannot be opened.
 */
export async function openFileSource(path: string | URL): Promise<ByteSource> {
  const file = await Deno.open(path, { read: true });
  try {
    const { size } = await file.stat();
    return {
      byteLength: size,
      read: async (offset, into) => {
        await file.seek(offset, Deno.SeekMode.Start);
        for (let done = 0; done < into.byteLength;) {
          const count = await file.read(into.subarray(done));
          if (count === null) throw new Error(`${path} must not become shorter while it is read`);
          done += count;
        }
      },
      [Symbol.dispose]: () => file.close(),
    };
  } catch (error) {
    file.close();
    throw error;
  }
}

/**
 * Creates a file that is written under a temporary name in the same directory and renamed on
 * commit. Requires `--allow-write` permission for the directory.
 *
 * @throws {Error} If it cannot be created.
 */
export async function createFileSink(path: string | URL): Promise<ByteSink> {
  const suffix = `.${systemRandom.bytes(8).toHex()}.tmp`;
  const temporary = path instanceof URL ? new URL(path) : path + suffix;
  if (temporary instanceof URL) temporary.pathname += suffix;
  const file = await Deno.open(temporary, { write: true, createNew: true, mode: 0o600 });
  let state: "open" | "closed" | "committed" = "open";
  const close = (): void => {
    if (state !== "open") return;
    file.close();
    state = "closed";
  };
  return {
    write: async (bytes) => {
      for (let done = 0; done < bytes.byteLength;) done += await file.write(bytes.subarray(done));
    },
    commit: async () => {
      close();
      await Deno.rename(temporary, path);
      state = "committed";
    },
    [Symbol.asyncDispose]: async () => {
      close();
      if (state !== "committed") await Deno.remove(temporary).catch(() => {});
    },
  };
}
