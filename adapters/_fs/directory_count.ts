import { type ObjectFile, walkObjects } from "./directory_walk.ts";
import type { FileSystem } from "./file_system.ts";
import type { ObjectPaths } from "./object_paths.ts";
import type { OldestFiles } from "./oldest_files.ts";

/** What a directory holds of a model. */
export interface ModelUsage {
  /** Name of the model. */
  readonly model: string;
  /** Objects whose names spell it. */
  readonly objects: number;
  /** Bytes that they take on disk. */
  readonly diskBytes: number;
  /** When the last of them was stored or used. */
  readonly usedAt: string;
}

/** What a walk through a directory found. */
export interface Totals {
  /** Objects. */
  readonly objects: number;
  /** Bytes that they take on disk. */
  readonly diskBytes: number;
  /** The models, the one that was used longest ago first. */
  readonly models: readonly ModelUsage[];
}

/** How a {@linkcode DirectoryCount} is set up. */
export interface DirectoryCountOptions {
  /** The file operations. */
  readonly files: FileSystem;
  /** Where the objects lie. */
  readonly paths: ObjectPaths;
  /** Gets every file that is found. */
  readonly oldest: OldestFiles;
  /** Ends walks. */
  readonly signal: AbortSignal;
}

/** Walks through a directory, in the background of what goes on, one walk at a time. */
export class DirectoryCount {
  readonly #options: DirectoryCountOptions;
  #totals: Totals | undefined;
  #walks = 0;
  #last: Promise<unknown> = Promise.resolve();
  #progress = Promise.withResolvers<void>();

  /** Counts the directory in `paths`. */
  constructor(options: DirectoryCountOptions) {
    this.#options = options;
  }

  /** What the last complete walk found. */
  get totals(): Totals | undefined {
    return this.#totals;
  }

  /** Whether a walk goes on. */
  get isWalking(): boolean {
    return this.#walks > 0;
  }

  /** Resolves when a walk has found more files, or is over. */
  progress(): Promise<void> {
    return this.#progress.promise;
  }

  /** Walks, from now on; resolves to `undefined` if the signal aborts. */
  walk(): Promise<Totals | undefined> {
    this.#walks++;
    const walked = this.#last.then(() => this.#walk()).finally(() => {
      this.#walks--;
      this.#tell();
    });
    this.#last = walked.catch(() => {});
    return walked;
  }

  /** Resolves when no walk goes on. */
  async idle(): Promise<void> {
    while (this.isWalking) await this.#last;
  }

  async #walk(): Promise<Totals | undefined> {
    const { files, paths, oldest, signal } = this.#options;
    const models = new ModelTally();
    let objects = 0;
    let diskBytes = 0;
    oldest.startWalk();
    try {
      for await (const batch of walkObjects(files, paths, signal)) {
        for (const file of batch) {
          objects++;
          diskBytes += file.diskBytes;
          oldest.offer(file);
          if (typeof file.object !== "string") models.add(file.object.key.model, file);
        }
        this.#tell();
      }
    } finally {
      oldest.endWalk();
    }
    if (signal.aborted) return undefined;
    return this.#totals = { objects, diskBytes, models: models.usages() };
  }

  #tell(): void {
    this.#progress.resolve();
    this.#progress = Promise.withResolvers();
  }
}

class ModelTally {
  readonly #models = new Map<string, { objects: number; diskBytes: number; usedAt: number }>();

  add(model: string, { diskBytes, usedAt }: ObjectFile): void {
    const tally = this.#models.get(model);
    if (tally === undefined) {
      this.#models.set(model, { objects: 1, diskBytes, usedAt });
    } else {
      tally.objects++;
      tally.diskBytes += diskBytes;
      tally.usedAt = Math.max(tally.usedAt, usedAt);
    }
  }

  usages(): ModelUsage[] {
    const tallies = [...this.#models].sort(([, a], [, b]) => a.usedAt - b.usedAt);
    return tallies.map(([model, { usedAt, ...tally }]) => ({
      model,
      ...tally,
      usedAt: new Date(usedAt).toISOString(),
    }));
  }
}
