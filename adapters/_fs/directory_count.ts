import { type ObjectFile, walkObjects } from "./directory_walk.ts";
import type { FileSystem } from "./file_system.ts";
import type { ObjectPaths } from "./object_paths.ts";
import type { OldestFiles } from "./oldest_files.ts";

/** Usage of a directory by one model. */
export interface ModelUsage {
  readonly model: string;
  /** Number of objects whose names spell the model. */
  readonly objects: number;
  /** Bytes on disk of these objects. */
  readonly diskBytes: number;
  /** Time of the last store or use, in ISO format. */
  readonly usedAt: string;
}

/** Result of a walk through the directory. */
export interface Totals {
  /** Number of objects. */
  readonly objects: number;
  /** Bytes on disk of the objects. */
  readonly diskBytes: number;
  /** Usage by model, least recently used first. */
  readonly models: readonly ModelUsage[];
}

/** Options of a {@linkcode DirectoryCount}. */
export interface DirectoryCountOptions {
  readonly files: FileSystem;
  readonly paths: ObjectPaths;
  /** Receives every file that a walk finds. */
  readonly oldest: OldestFiles;
  /** Aborts walks. */
  readonly signal: AbortSignal;
}

/** Counts a directory by walking through it in the background, one walk at a time. */
export class DirectoryCount {
  readonly #options: DirectoryCountOptions;
  #totals: Totals | undefined;
  #walks = 0;
  #last: Promise<unknown> = Promise.resolve();
  #progress = Promise.withResolvers<void>();

  constructor(options: DirectoryCountOptions) {
    this.#options = options;
  }

  /** Result of the last complete walk. */
  get totals(): Totals | undefined {
    return this.#totals;
  }

  /** Whether a walk is running. */
  get isWalking(): boolean {
    return this.#walks > 0;
  }

  /** Resolves when a walk has found more files or has ended. */
  progress(): Promise<void> {
    return this.#progress.promise;
  }

  /** Starts a new walk after the current one; resolves to `undefined` if the signal aborts. */
  walk(): Promise<Totals | undefined> {
    this.#walks++;
    const walked = this.#last.then(() => this.#walk()).finally(() => {
      this.#walks--;
      this.#notifyProgress();
    });
    this.#last = walked.catch(() => {});
    return walked;
  }

  /** Resolves when no walk is running. */
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
        this.#notifyProgress();
      }
    } finally {
      oldest.endWalk();
    }
    if (signal.aborted) return undefined;
    return this.#totals = { objects, diskBytes, models: models.usages() };
  }

  #notifyProgress(): void {
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
