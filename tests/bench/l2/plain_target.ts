import { join } from "@std/path";
import { type BenchTarget, countInParallel, type Round } from "./target.ts";

/** Files at a time of the plain loop; the best counts. */
export const PLAIN_CONCURRENCIES = [1, 2, 4, 8, 16];

/** The plainest loop over files: what any file adapter is measured against. */
export class PlainTarget implements BenchTarget {
  /** Name in the results. */
  readonly name: string;
  /** Files at a time. */
  readonly concurrency: number;
  /** There is nothing to search in. */
  readonly lookupKinds = ["each"] as const;
  readonly #directory: string;
  readonly #buffers: "loaded" | "aligned";

  /** Keeps files in `directory`, and reads them into one kind of buffers. */
  constructor(
    directory: string,
    concurrency: number,
    { name = "limit", buffers = "loaded" }: {
      readonly name?: string;
      readonly buffers?: "loaded" | "aligned";
    } = {},
  ) {
    this.name = name;
    this.#directory = directory;
    this.#buffers = buffers;
    this.concurrency = concurrency;
  }

  /** Writes each payload under a temporary name and renames it. */
  store({ keys, buffers: { sources } }: Round): Promise<number> {
    return countInParallel(keys.length, this.concurrency, async (index) => {
      const path = this.#pathOf(keys[index]?.chunkHashHex);
      await writeFile(`${path}.tmp`, sources[index]?.payload ?? new Uint8Array());
      await Deno.rename(`${path}.tmp`, path);
      return true;
    });
  }

  /** Asks for each file. */
  lookup({ lookups }: Round): Promise<number> {
    return countInParallel(lookups.length, this.concurrency, async (index) => {
      try {
        return (await Deno.lstat(this.#pathOf(lookups[index]?.chunkHashHex))).isFile;
      } catch {
        return false;
      }
    });
  }

  /** Reads each file into its buffer. */
  load({ keys, buffers }: Round): Promise<number> {
    return countInParallel(
      keys.length,
      this.concurrency,
      (index) =>
        readFile(
          this.#pathOf(keys[index]?.chunkHashHex),
          buffers[this.#buffers][index]?.payload ?? new Uint8Array(),
        ),
    );
  }

  /** Removes the files. */
  async clear({ keys }: Round): Promise<void> {
    await countInParallel(keys.length, this.concurrency, async (index) => {
      await Deno.remove(this.#pathOf(keys[index]?.chunkHashHex));
      return true;
    });
  }

  /** Nothing is held open. */
  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  #pathOf(name = ""): string {
    return join(this.#directory, name);
  }
}

async function writeFile(path: string, bytes: Uint8Array): Promise<void> {
  using file = await Deno.open(path, { write: true, createNew: true });
  for (let done = 0; done < bytes.length;) done += await file.write(bytes.subarray(done));
}

async function readFile(path: string, buffer: Uint8Array): Promise<boolean> {
  using file = await Deno.open(path);
  for (let done = 0; done < buffer.length;) {
    const read = await file.read(buffer.subarray(done));
    if (read === null) return false;
    done += read;
  }
  return true;
}
