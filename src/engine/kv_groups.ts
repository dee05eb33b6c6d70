import type { KvLayout } from "../keys/kv_layout.ts";
import { checkNumber, checkOptionKeys, typeInWords } from "../base/options.ts";
import type { SequenceKv } from "./kv_binding.ts";

/** Layers that attend alike. Their KV is stored in objects separate from those of other groups. */
export interface KvGroup {
  /** Layout of one chunk of their KV. All groups must have the same chunk size. */
  readonly layout: KvLayout;
  /**
   * Size of the sliding attention window in tokens, including the current one. Only the chunks that
   * contain the last `windowTokens` tokens of a prefix are needed. Full attention if left out.
   */
  readonly windowTokens?: number;
}

/** KV of all layers, or an array with the KV of each group if the layers form several. */
export type GroupedKv = SequenceKv | readonly SequenceKv[];

/**
 * The groups that the `layout` option of a prefix cache describes.
 *
 * @throws {TypeError | RangeError} If it is neither a layout nor an array of groups with the same
 * chunk size.
 */
export function groupsOf(layout: KvLayout | readonly KvGroup[]): readonly KvGroup[] {
  if (!isListOfGroups(layout)) {
    checkLayout("layout", layout);
    return [{ layout }];
  }
  let chunkTokens: number | undefined;
  for (const [i, group] of layout.entries()) {
    const what = `layout[${i}]`;
    if (isLayout(group)) {
      throw new TypeError(`${what} must be { layout, windowTokens? }: received a layout`);
    }
    checkOptionKeys(what, group, ["layout", "windowTokens"]);
    checkLayout(`${what}.layout`, group.layout);
    chunkTokens ??= group.layout.chunkTokens;
    if (group.layout.chunkTokens !== chunkTokens) {
      throw new RangeError(
        `Groups must have the same chunk size: received ${chunkTokens} and ${group.layout.chunkTokens} tokens`,
      );
    }
    if (group.windowTokens !== undefined) {
      checkNumber(`${what}.windowTokens`, group.windowTokens, { minimum: 1 });
    }
  }
  return layout;
}

/** The first group, whose chunk size is that of all groups. */
export function firstOf(groups: readonly KvGroup[]): KvGroup {
  const [first] = groups;
  if (first === undefined) {
    throw new RangeError("layout must have at least one group: received none");
  }
  return first;
}

/** Maximum number of chunks of a group that a prefix needs. */
export function chunksOf({ layout, windowTokens = Infinity }: KvGroup): number {
  return Math.ceil(windowTokens / layout.chunkTokens);
}

/**
 * Returns the KV of each group.
 *
 * @throws {RangeError} If `kv` has another number of groups.
 */
export function splitByGroup(groups: readonly KvGroup[], kv: GroupedKv): readonly SequenceKv[] {
  if (isGrouped(kv)) {
    if (kv.length === groups.length) return kv;
    throw new RangeError(`KV must be given for ${groups.length} groups: received ${kv.length}`);
  }
  if (groups.length === 1) return [kv];
  throw new RangeError(
    `KV must be given for ${groups.length} groups: received 1, pass an array with the KV of each`,
  );
}

/** Whether `kv` is an array of the KV of groups, whose elements are arrays or blocks. */
function isGrouped(kv: GroupedKv): kv is readonly SequenceKv[] {
  return Array.isArray(kv) &&
    kv.some((part: unknown) =>
      Array.isArray(part) || (typeof part === "object" && part !== null && "layers" in part)
    );
}

function isListOfGroups(layout: KvLayout | readonly KvGroup[]): layout is readonly KvGroup[] {
  return Array.isArray(layout);
}

function isLayout(value: unknown): value is KvLayout {
  return typeof value === "object" && value !== null && "fingerprint" in value &&
    value.fingerprint instanceof Uint8Array;
}

function checkLayout(what: string, value: unknown): asserts value is KvLayout {
  if (isLayout(value)) return;
  const list = what === "layout" ? ", or an array of groups" : "";
  throw new TypeError(`${what} must be made by kvLayout()${list}: received ${typeInWords(value)}`);
}
