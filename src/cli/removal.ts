import type { ListedObject } from "../adapter/contract.ts";
import { REMOVAL_BATCH, removeObjects } from "../eviction/remove_objects.ts";
import type { ObjectKey } from "../keys/object_key.ts";
import type { AdapterGuard } from "../l2/adapter_guard.ts";
import { CommandError } from "./command.ts";
import { lastErrorOf } from "./stores.ts";

/** What a command removed. */
export interface RemovalCounts {
  /** Objects removed, or to be removed in a dry run. */
  objects: number;
  /** Bytes of these objects. */
  bytes: number;
  /** Objects that could not be removed. */
  failed: number;
}

/** Options of a {@linkcode BatchRemoval}. */
export interface RemovalOptions {
  /** Whether to count only. @default {false} */
  readonly isDryRun?: boolean;
  /** Whether to look up what the adapter reports as removed. @default {false} */
  readonly isVerified?: boolean;
}

/** Removes objects of one adapter in batches. */
export class BatchRemoval {
  readonly counts: RemovalCounts = { objects: 0, bytes: 0, failed: 0 };
  readonly #guard: AdapterGuard;
  readonly #options: RemovalOptions;
  readonly #keys: ObjectKey[] = [];

  constructor(guard: AdapterGuard, options: RemovalOptions = {}) {
    this.#guard = guard;
    this.#options = options;
  }

  /**
   * Removes an object, now or with later ones.
   *
   * @throws {CommandError} If the adapter fails.
   */
  async add({ key, byteLength }: ListedObject): Promise<void> {
    if (this.#options.isDryRun) {
      this.counts.objects++;
      this.counts.bytes += byteLength;
      return;
    }
    this.#keys.push(key);
    if (this.#keys.length === REMOVAL_BATCH) await this.flush();
  }

  /**
   * Removes the objects that wait for others.
   *
   * @throws {CommandError} If the adapter fails.
   */
  async flush(): Promise<void> {
    const keys = this.#keys.splice(0);
    if (keys.length === 0) return;
    const { counts } = this;
    const removal = await removeObjects(this.#guard, keys, this.#options);
    counts.objects += removal.objects;
    counts.bytes += removal.bytes;
    counts.failed += removal.locked.length + removal.stayed.length + removal.unknown.length;
    if (removal.isSkipped || removal.unknown.length > 0) {
      throw new CommandError(
        `${counts.objects} objects were removed, then a removal failed: ${
          lastErrorOf(this.#guard)
        }`,
      );
    }
  }
}
