import type { CopyOperation, DeviceBuffer, MemoryRange } from "./memory_device.ts";

/** Maximum number of bytes that one workgroup copies. */
export const TILE_BYTES = 16 * 1024;
/** Size of a table entry in bytes. */
export const ENTRY_BYTES = 16;
/** Maximum number of tiles of a plan, which bounds its table to 4 MiB. */
const MAX_TILES = 2 ** 18;
/** Fewer operations per pair of buffers are copied individually: a dispatch costs about as much. */
const MIN_OPERATIONS = 4;
const ENTRY_WORDS = ENTRY_BYTES / Uint32Array.BYTES_PER_ELEMENT;

/** Limits of a device for shader bindings. */
export interface BindingLimits {
  /** Alignment of the offset of a binding, in bytes: a power of two of at least 32. */
  readonly offsetAlignment: number;
  /** Maximum size of a binding, in bytes. */
  readonly maxBindingBytes: number;
}

/** One dispatch of operations between the same two buffers. */
export interface CopyDispatch {
  /** The range of the source buffer that it reads. */
  readonly source: MemoryRange;
  /** The range of the destination buffer that it writes. */
  readonly destination: MemoryRange;
  /** Unit of the shader's accesses in bytes; all offsets and sizes are multiples of it. */
  readonly unitBytes: 4 | 16;
  /** Offset of its tiles in the table in bytes, a multiple of the offset alignment. */
  readonly tableOffset: number;
  /** Number of tiles, each copied by one workgroup. */
  readonly tiles: number;
}

/** Assigns the operations of one call to dispatches and individual copies. */
export interface CopyPlan {
  /** The dispatches. */
  readonly dispatches: readonly CopyDispatch[];
  /**
   * Per tile, its offset in the source, its offset in the destination, and its size, in units of its
   * dispatch and relative to the ranges. The fourth number is unused.
   */
  readonly table: Uint32Array<ArrayBuffer>;
  /** Operations to copy individually. */
  readonly copies: readonly CopyOperation[];
}

/**
 * Divides operations into dispatches and plain copies. Dispatches run in no order, so that if an
 * operation reads or writes what another one writes, all of them are copies, in their order.
 *
 * @param isBindable Whether shaders can use a buffer.
 */
export function planCopies(
  operations: readonly CopyOperation[],
  { offsetAlignment, maxBindingBytes }: BindingLimits,
  isBindable: (buffer: DeviceBuffer) => boolean,
): CopyPlan {
  if (!areIndependent(operations)) {
    return { dispatches: [], table: new Uint32Array(), copies: operations };
  }
  // Operations that start in the same cell of a buffer and are no longer than a cell fit into one
  // binding.
  const cellBytes = Math.floor(maxBindingBytes / 2 / offsetAlignment) * offsetAlignment;
  const copies: CopyOperation[] = [];
  const groups = new Groups(cellBytes);
  let tilesLeft = Math.min(MAX_TILES, Math.floor(maxBindingBytes / ENTRY_BYTES));
  for (const operation of operations) {
    const { source, destination, byteLength } = operation;
    const tiles = Math.ceil(byteLength / TILE_BYTES);
    const fits = byteLength <= cellBytes && tiles <= tilesLeft;
    if (fits && isBindable(source) && isBindable(destination)) {
      groups.of(operation).push(operation);
      tilesLeft -= tiles;
    } else copies.push(operation);
  }
  const dispatches = new Map<CopyDispatch, readonly CopyOperation[]>();
  let tableBytes = 0;
  for (const group of groups.all) {
    if (group.length < MIN_OPERATIONS) {
      copies.push(...group);
      continue;
    }
    const dispatch = dispatchOf(group, offsetAlignment, tableBytes);
    dispatches.set(dispatch, group);
    tableBytes = roundUp(tableBytes + dispatch.tiles * ENTRY_BYTES, offsetAlignment);
  }
  const table = new Uint32Array(tableBytes / Uint32Array.BYTES_PER_ELEMENT);
  for (const [dispatch, group] of dispatches) writeTiles(table, dispatch, group);
  return { dispatches: [...dispatches.keys()], table, copies };
}

/** Whether the result is independent of the order of the operations. */
function areIndependent(operations: readonly CopyOperation[]): boolean {
  const sources = new Set(operations.map(({ source }) => source));
  const writes = Map.groupBy(operations, ({ destination }) => destination);
  for (const [destination, writesOfOne] of writes) {
    // Engines do not copy in both directions in one call, so comparing buffers suffices.
    if (sources.has(destination)) return false;
    writesOfOne.sort((a, b) => a.destinationOffset - b.destinationOffset);
    let end = 0;
    for (const { destinationOffset, byteLength } of writesOfOne) {
      if (destinationOffset < end) return false;
      end = destinationOffset + byteLength;
    }
  }
  return true;
}

/** Groups operations that one dispatch can bind: by cell of the source and of the destination. */
class Groups {
  /** The groups, ordered by their first operations. */
  readonly all: CopyOperation[][] = [];
  readonly #cellBytes: number;
  readonly #bySource = new Map<DeviceBuffer, Map<DeviceBuffer, Map<string, CopyOperation[]>>>();

  constructor(cellBytes: number) {
    this.#cellBytes = cellBytes;
  }

  of({ source, sourceOffset, destination, destinationOffset }: CopyOperation): CopyOperation[] {
    const byDestination = getOrInsert(this.#bySource, source, () => new Map());
    const byCells = getOrInsert(byDestination, destination, () => new Map());
    const cellOf = (offset: number): number => Math.floor(offset / this.#cellBytes);
    const cells = `${cellOf(sourceOffset)} ${cellOf(destinationOffset)}`;
    return getOrInsert(byCells, cells, () => {
      const group: CopyOperation[] = [];
      this.all.push(group);
      return group;
    });
  }
}

function getOrInsert<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, value = make());
  return value;
}

function dispatchOf(
  group: readonly CopyOperation[],
  offsetAlignment: number,
  tableOffset: number,
): CopyDispatch {
  const { source, destination } = group[0] as CopyOperation;
  let [sourceStart, sourceEnd, destinationStart, destinationEnd] = [Infinity, 0, Infinity, 0];
  let tiles = 0;
  let bits = 0;
  for (const { sourceOffset, destinationOffset, byteLength } of group) {
    sourceStart = Math.min(sourceStart, sourceOffset);
    sourceEnd = Math.max(sourceEnd, sourceOffset + byteLength);
    destinationStart = Math.min(destinationStart, destinationOffset);
    destinationEnd = Math.max(destinationEnd, destinationOffset + byteLength);
    tiles += Math.ceil(byteLength / TILE_BYTES);
    bits |= sourceOffset % 16 | destinationOffset % 16 | byteLength % 16;
  }
  const range = (buffer: DeviceBuffer, start: number, end: number): MemoryRange => {
    const byteOffset = start - start % offsetAlignment;
    return { buffer, byteOffset, byteLength: end - byteOffset };
  };
  return {
    source: range(source, sourceStart, sourceEnd),
    destination: range(destination, destinationStart, destinationEnd),
    unitBytes: bits === 0 ? 16 : 4,
    tableOffset,
    tiles,
  };
}

function writeTiles(
  table: Uint32Array,
  { source, destination, unitBytes, tableOffset }: CopyDispatch,
  group: readonly CopyOperation[],
): void {
  let at = tableOffset / Uint32Array.BYTES_PER_ELEMENT;
  for (const { sourceOffset, destinationOffset, byteLength } of group) {
    for (let done = 0; done < byteLength; done += TILE_BYTES) {
      table[at] = (sourceOffset - source.byteOffset + done) / unitBytes;
      table[at + 1] = (destinationOffset - destination.byteOffset + done) / unitBytes;
      table[at + 2] = Math.min(TILE_BYTES, byteLength - done) / unitBytes;
      at += ENTRY_WORDS;
    }
  }
}

function roundUp(bytes: number, alignment: number): number {
  return Math.ceil(bytes / alignment) * alignment;
}
