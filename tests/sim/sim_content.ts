import type { ObjectLayout } from "../../src/keys/kv_layout.ts";
import { ObjectKey } from "../../src/keys/object_key.ts";
import { sha256 } from "../../src/base/digest.ts";
import type { KeyGroup } from "../../src/prefetch/key_group.ts";

/** One group of layers of a simulated model. */
export interface SimGroup {
  readonly layout: ObjectLayout;
  readonly windowChunks?: number;
}

/** A model: its name, and its groups of layers. */
export interface SimModel {
  readonly name: string;
  readonly groups: readonly SimGroup[];
}

function layoutOf(byteLength: number, version: number): ObjectLayout {
  return { byteLength, fingerprint: new Uint8Array(8).fill(version) };
}

/** A model of one group, and one with a sliding window. */
export const MODELS: readonly SimModel[] = [
  { name: "sim/dense", groups: [{ layout: layoutOf(1024, 1) }] },
  {
    name: "sim/hybrid",
    groups: [{ layout: layoutOf(512, 2) }, { layout: layoutOf(768, 3), windowChunks: 2 }],
  },
];

/** Layout that objects of a model had before its weights changed. */
export function staleLayout({ byteLength }: ObjectLayout): ObjectLayout {
  return layoutOf(byteLength, 99);
}

const MAX_KEPT_KEYS = 20_000;
const keptKeys = new Map<string, ObjectKey>();

/**
 * The groups of a prompt: its chunks are the prefixes of a path; hashes do not depend on the salt.
 */
export function rowsOf(model: SimModel, salt: string, path: readonly number[]): KeyGroup[] {
  return model.groups.map(({ layout, windowChunks }, objectGroup): KeyGroup => {
    let name = "";
    const keys = path.map((chunk) => {
      name += `${chunk}.`;
      const id = `${model.name} ${objectGroup} ${salt} ${name}`;
      const kept = keptKeys.get(id);
      if (kept !== undefined) return kept;
      const chunkHash = sha256(new TextEncoder().encode(name));
      const key = new ObjectKey({ chunkHash, model: model.name, objectGroup, cacheSalt: salt });
      if (keptKeys.size > MAX_KEPT_KEYS) keptKeys.clear();
      keptKeys.set(id, key);
      return key;
    });
    return { keys, layout, ...(windowChunks === undefined ? {} : { windowChunks }) };
  });
}

/** The bytes that belong under a key: a function of the whole key. */
export function contentOf(
  key: ObjectKey,
  byteLength: number,
  version = 0,
): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(byteLength / 4);
  const seed = seedOf(key, version);
  for (let i = 0; i < words.length; i++) words[i] = wordOf(seed, i);
  return new Uint8Array(words.buffer);
}

/** Whether these are the bytes that belong under a key. */
export function isContentOf(key: ObjectKey, bytes: Uint8Array<ArrayBuffer>): boolean {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const seed = seedOf(key, 0);
  for (let i = 0; i < words.length; i++) {
    if (words[i] !== wordOf(seed, i)) return false;
  }
  return true;
}

function seedOf(key: ObjectKey, version: number): number {
  const { buffer, byteOffset } = key.digest;
  return new DataView(buffer, byteOffset).getUint32(0) ^ Math.imul(version, 0x9e3779b1);
}

function wordOf(seed: number, i: number): number {
  const mixed = Math.imul(seed ^ Math.imul(i + 1, 0x85ebca6b), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 15)) >>> 0;
}
