import { basename, dirname, join } from "@std/path";
import type { ObjectKey } from "../../src/adapter/contract.ts";
import { wait } from "../../src/base/clock.ts";
import { ConfigError } from "../../src/base/config_error.ts";
import { foreignOwner, OWN_DIRECTORY } from "../_shared/directory_owner.ts";
import { entriesOf, objectDirectories } from "./directory_walk.ts";
import type { FileSystem } from "./file_system.ts";
import { foldsNames } from "./name_folding.ts";
import type { StoreContext } from "./store_context.ts";

/** Max looks at a directory whose maker has not shared it yet, and the pause after each. */
const SHARING_LOOKS = 20;
const SHARING_PAUSE_MS = 5;

/** Makes and checks the directories of objects, of temporary files and of the ledger. */
export class ObjectDirectories {
  readonly #context: StoreContext;
  readonly #prepareShared: () => Promise<void>;
  /** Directories that existed recently. */
  readonly #known = new Set<string>();
  /** Links in place of first-level shard directories; they are not followed. */
  readonly #linkedShards = new Set<string>();
  /** Read permissions of an LMCache directory, which new entries get too. */
  #readerMode = 0;
  #makingShards: Promise<void> | undefined;

  /**
   * @param prepareShared Creates the files in the directory of the ledger.
   */
  constructor(context: StoreContext, prepareShared: () => Promise<void>) {
    this.#context = context;
    this.#prepareShared = prepareShared;
  }

  /** File mode of objects. */
  get objectMode(): number {
    return this.#context.fileMode | (this.#readerMode & 0o044);
  }

  /** Whether a shard directory is a link. */
  get hasLinks(): boolean {
    return this.#linkedShards.size > 0;
  }

  /**
   * Creates the base directory if possible, and checks it.
   *
   * @throws {ConfigError} If the path is no directory, belongs to another user, is writable by
   * others, or may not be used by this process.
   */
  async open(): Promise<void> {
    const { paths: { basePath }, background: files, ...options } = this.#context;
    const { isGroupShared, allowsForeignOwner, isUnsealed, report } = options;
    try {
      await files.mkdir(basePath, this.#mode);
    } catch (cause) {
      // A disk may be mounted and permissions granted later; a file in the way is a mistake.
      const existing = await files.lstat(basePath).catch((error: unknown) => {
        if (!(error instanceof Deno.errors.NotCapable)) return undefined;
        const use = "a path that this process may use: below /dev, /proc and /sys only --allow-all";
        throw wrongBasePath(`${use} lets it`, basePath);
      });
      if (existing?.isDirectory === false) {
        throw wrongBasePath("a directory, or a path where one can be created", basePath);
      }
      report("open", cause);
    }
    const info = await files.lstat(basePath).catch(() => undefined);
    const mode = info?.mode ?? 0;
    if (!isGroupShared && (mode & 0o022) !== 0) {
      throw wrongBasePath(
        "a directory that no other user can write to (chmod go-w), or allow_shared_group: true",
        `${basePath} with mode ${(mode & 0o7777).toString(8).padStart(4, "0")}`,
      );
    }
    // In a shared group directory, most members are not the owner.
    if (info !== undefined && !allowsForeignOwner && !isGroupShared) {
      const received = await foreignOwner(basePath, info.uid);
      if (received !== undefined) throw wrongBasePath(OWN_DIRECTORY, received);
    }
    if (isUnsealed) this.#readerMode = mode & 0o055;
    await this.#findLinkedShards();
  }

  /** Whether a directory existed recently, so that a store can try it. */
  isKnown(path: string): boolean {
    return this.#known.has(this.#context.sharedPath) && this.#known.has(path);
  }

  /** Makes a directory of objects, and the others that a store needs. */
  async make(path: string, files: FileSystem): Promise<void> {
    if (!this.#known.has(this.#context.sharedPath)) await this.makeShared(files);
    if (this.#known.has(path)) return;
    await this.#makeShard(path, files);
    this.#makingShards ??= this.#makeShards();
  }

  /** Makes the directories of the ledger and of temporary files. */
  async makeShared(files: FileSystem): Promise<void> {
    const { sharedPath, tmpPath } = this.#context;
    await this.#makeDirectory(sharedPath, this.#mode, files);
    if (tmpPath !== undefined) await this.#makeDirectory(tmpPath, this.#mode, files);
    await this.#prepareShared();
    this.#known.add(sharedPath);
  }

  /** Forgets which directories exist, because one was removed. */
  forget(): void {
    this.#known.clear();
  }

  /** Path of an object; `undefined` if its shard directory is a link. */
  placeOf(key: ObjectKey): string | undefined {
    const path = this.#context.paths.pathOf(key);
    return this.hasLinks && this.#linkedShards.has(this.#firstLevelOf(path)) ? undefined : path;
  }

  /**
   * Whether the file system treats names as equal that differ in case or in Unicode form.
   *
   * @param pathOf Path of a temporary file for a name in the directory of the ledger.
   */
  async foldsNames(pathOf: (name: string) => string): Promise<boolean> {
    const { sharedPath, background: files, fileMode } = this.#context;
    // In a read-only directory, an existing name is used for the test.
    const shared = await files.lstat(sharedPath).catch(() => undefined);
    const other = await files.lstat(join(dirname(sharedPath), basename(sharedPath).toUpperCase()))
      .catch(() => undefined);
    if (shared !== undefined && shared.ino === other?.ino && shared.dev === other.dev) return true;
    try {
      await this.#makeDirectory(sharedPath, this.#mode, files);
      return await foldsNames(files, pathOf, fileMode);
    } catch {
      // Stores that fail for the same reason report it.
      return false;
    }
  }

  /** Directories that may contain temporary files, whatever their writers' configuration. */
  async *temporaryPlaces(): AsyncGenerator<string, void> {
    const { paths, sharedPath, tmpPath, background } = this.#context;
    yield sharedPath;
    if (tmpPath !== undefined && tmpPath !== sharedPath) yield tmpPath;
    yield* objectDirectories(background, paths);
  }

  /** Waits for directories in the making. */
  async close(): Promise<void> {
    await this.#makingShards;
  }

  get #mode(): number {
    return this.#context.isGroupShared ? 0o2770 : 0o700;
  }

  async #makeShard(path: string, files: FileSystem): Promise<void> {
    const made = await this.#makeDirectory(path, this.#mode | this.#readerMode, files);
    if (this.#context.durability === "full") {
      for (const step of made) await files.syncDirectory(dirname(step));
    }
    this.#known.add(path);
    this.#linkedShards.delete(this.#firstLevelOf(path));
  }

  /** Creates all shard directories, so that later stores do not wait for them. */
  async #makeShards(): Promise<void> {
    const { paths, background, signal } = this.#context;
    for (const path of paths.shards()) {
      if (signal.aborted) return;
      try {
        if (!this.#known.has(path)) await this.#makeShard(path, background);
      } catch {
        // The store that needs the directory reports the error.
        return;
      }
    }
  }

  /** Creates a directory below the base directory; returns the directories on that path. */
  async #makeDirectory(path: string, mode: number, files: FileSystem): Promise<readonly string[]> {
    const { paths: { basePath }, isGroupShared } = this.#context;
    const steps: string[] = [];
    for (let at = path; at.length > basePath.length; at = dirname(at)) steps.unshift(at);
    for (const step of steps) {
      await files.mkdir(step, mode);
      const info = await files.lstat(step);
      // A link could point anywhere.
      if (!info.isDirectory) {
        throw new Deno.errors.NotADirectory(`${step} is a link, or no directory`);
      }
      if (isGroupShared) await this.#shareWithGroup(step, mode, files);
      // The directory may have been shared before.
      else if (((info.mode ?? 0) & 0o022) !== 0) await files.chmod(step, mode);
    }
    return steps;
  }

  /** Gives a directory the group permissions that the umask of the process may have removed. */
  async #shareWithGroup(path: string, mode: number, files: FileSystem): Promise<void> {
    const { clock, signal } = this.#context;
    if (await files.chmod(path, mode).then(() => true, () => false)) return;
    // Another member of the group may have made it just now, and share it next.
    for (let looks = 0; looks < SHARING_LOOKS && !signal.aborted; looks++) {
      const { mode: given } = await files.lstat(path);
      if (((given ?? mode) & 0o070) === (mode & 0o070)) return;
      await wait(clock, SHARING_PAUSE_MS, signal);
    }
  }

  async #findLinkedShards(): Promise<void> {
    const { paths, background, report } = this.#context;
    if (paths.levels === 0) return;
    try {
      for await (const { name, isSymlink } of entriesOf(background, paths.basePath)) {
        if (!isSymlink || !paths.isShard(0, name)) continue;
        const path = `${paths.basePath}/${name}`;
        this.#linkedShards.add(path);
        report("open", new Error(`${path} is a link, which is not followed: remove it`));
      }
    } catch (cause) {
      report("open", cause);
    }
  }

  /** First-level shard of a path: the base directory is followed by a separator and two digits. */
  #firstLevelOf(path: string): string {
    return path.slice(0, this.#context.paths.basePath.length + 3);
  }
}

function wrongBasePath(expected: string, received: string): ConfigError {
  return new ConfigError({ subject: "fs adapter", key: "base_path", expected, received });
}
