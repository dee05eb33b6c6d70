import {
  type AdapterObject,
  frontOfParts,
  type ObjectKey,
  systemRandom,
} from "../../src/adapter/contract.ts";
import type { Report } from "../_shared/report.ts";
import type { PoolIndex } from "./index_file.ts";
import type { SlotFiles } from "./slot_files.ts";
import { RUN_BYTES } from "./slot_format.ts";
import { type SlotEntry, SlotTable } from "./slot_table.ts";

/** A pool that is laid out: its files, and the table of what their slots hold. */
export class SlotPool {
  readonly files: SlotFiles;
  readonly table: SlotTable;
  readonly #report: Report;
  readonly #run: Uint8Array = systemRandom.bytes(RUN_BYTES);
  #nextSequence: number;

  constructor(files: SlotFiles, index: PoolIndex, report: Report) {
    this.files = files;
    this.table = new SlotTable(files.geometry.slots, index.objects);
    this.#nextSequence = index.nextSequence;
    this.#report = report;
  }

  /** What the next owner needs to know of the slots. */
  index(): PoolIndex {
    return { objects: this.table.entries(), nextSequence: this.#nextSequence };
  }

  /** Reads an object into its parts; resolves to whether that succeeded. */
  async read(entry: SlotEntry, { key, parts, byteLength }: AdapterObject): Promise<boolean> {
    const filled = entry.byteLength < byteLength ? frontOfParts(parts, entry.byteLength) : parts;
    try {
      if (await this.files.read(entry.slot, filled)) return true;
      if (!entry.isRetired) await this.drop(entry);
      throw new Deno.errors.UnexpectedEof("The file ends before the object does");
    } catch (cause) {
      this.#report("load", cause, key);
      return false;
    }
  }

  /** Writes an object; its entry stays in use. Resolves to `undefined` on failure. */
  async write(
    object: AdapterObject,
    onEvicted: (key: ObjectKey) => void,
  ): Promise<SlotEntry | undefined> {
    const { files, table } = this;
    const { key, byteLength } = object;
    const { slotBytes } = files.geometry;
    if (byteLength > slotBytes) {
      const reason = `An object of ${byteLength} bytes must fit into a slot of ${slotBytes} bytes`;
      this.#report("store", new RangeError(`${reason}: see backend_params.slot_bytes`), key);
      return undefined;
    }
    const slot = table.takeSlot(onEvicted);
    if (slot === undefined) {
      this.#report("store", new Error("All slots are locked or in use: see pool_size"), key);
      return undefined;
    }
    const sequence = this.#nextSequence++;
    try {
      await files.write({ slot, slotBytes, sequence, run: this.#run, key, byteLength }, object);
    } catch (cause) {
      this.#report("store", cause, key);
      await this.#clear(slot);
      table.giveBack(slot);
      return undefined;
    }
    const { entry, retired } = table.commit({ key, slot, byteLength, sequence });
    if (retired !== undefined) {
      await this.#clear(retired.slot);
      table.release(retired);
    }
    return entry;
  }

  /** Removes an object from the pool. */
  async drop(entry: SlotEntry): Promise<void> {
    this.table.retire(entry);
    try {
      await this.files.clear(entry.slot);
    } finally {
      this.table.release(entry);
    }
  }

  /**
   * Clears a slot whose object must not reappear after a crash. A failure is reported without a
   * key.
   */
  async #clear(slot: number): Promise<void> {
    try {
      await this.files.clear(slot);
    } catch (cause) {
      this.#report("clear", cause);
    }
  }
}
