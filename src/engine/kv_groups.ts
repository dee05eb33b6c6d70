import type { KvLayout } from "../keys/kv_layout.ts";
import { checkNumber, checkOptionKeys, typeInWords } from "../runtime/options.ts";
import type { SequenceKv } from "./kv_binding.ts";

/** Layers whose KV is kept in objects of their own, because they attend differently. */
export interface KvGroup {
  /** Layout of one chunk of their KV; all groups have one chunk size. */
  readonly layout: KvLayout;
  /**
   * For a sliding window: its size in tokens, the current one included. Only the chunks that hold
   * the last so many tokens of a prefix are needed for it. Left out, all are.
   */
  readonly windowTokens?: number;
}

/** KV of all layers; where they form groups, that of each group. */
export type GroupedKv = SequenceKv | readonly SequenceKv[];

/**
 * The groups that the `layout` of a prefix cache stands for.
 *
 * @throws {TypeError | RangeError} If it is neither a layout nor a list of groups with one chunk
 * size.
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
        `Groups must have one chunk size: received ${chunkTokens} and ${group.layout.chunkTokens} tokens`,
      );
    }
    if (group.windowTokens !== undefined) {
      checkNumber(`${what}.windowTokens`, group.windowTokens, { minimum: 1 });
    }
  }
  return layout;
}

/** The first group: all have one chunk size. */
export function firstOf(groups: readonly KvGroup[]): KvGroup {
  const [first] = groups;
  if (first === undefined) throw new RangeError("Layout must have a group: received none");
  return first;
}

/** The most chunks of a group that a prefix needs. */
export function chunksOf({ layout, windowTokens = Infinity }: KvGroup): number {
  return Math.ceil(windowTokens / layout.chunkTokens);
}

/**
 * The KV of each group.
 *
 * @throws {RangeError} If it is given for another number of groups.
 */
export function splitByGroup(groups: readonly KvGroup[], kv: GroupedKv): readonly SequenceKv[] {
  if (isGrouped(kv)) {
    if (kv.length === groups.length) return kv;
    throw new RangeError(`KV must be given for ${groups.length} groups: received ${kv.length}`);
  }
  if (groups.length === 1) return [kv];
  throw new RangeError(
    `KV must be given for ${groups.length} groups: received 1, give an array with that of each`,
  );
}

/** Whether it is a list of the KV of groups: one of layers has neither lists nor blocks in it. */
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
  const list = what === "layout" ? ", or be a list of groups" : "";
  throw new TypeError(`${what} must be made by kvLayout()${list}: received ${typeInWords(value)}`);
}
