import { crc32 } from "../../../src/base/checksum.ts";
import { TRAILER_BYTES } from "../../../src/adapter/object_trailer.ts";
import type { SeededRandom } from "../../support/random.ts";

/** Damages the bytes of an object; `other` are the bytes of another object of the same size. */
type Mutation = (
  bytes: Uint8Array<ArrayBuffer>,
  random: SeededRandom,
  other: Uint8Array,
) => Uint8Array<ArrayBuffer>;

const PAGE_BYTES = 4096;
const SECTOR_BYTES = 512;
const MAGIC = new TextEncoder().encode("KVT1");

/** Ways to damage an object in a single file. Rarely, the result is undamaged. */
export const MUTATIONS: Readonly<Record<string, Mutation>> = {
  truncated: (bytes, random) => bytes.subarray(0, random.below(bytes.length)),
  extended: (bytes, random) => {
    const more = new Uint8Array(bytes.length + 1 + random.below(PAGE_BYTES));
    more.set(bytes);
    // Zeros, as file systems append, or a second trailer.
    if (random.chance(0.5)) more.set(bytes.subarray(-TRAILER_BYTES), more.length - TRAILER_BYTES);
    return more;
  },
  zeroedSector: (bytes, random) => zero(bytes, random, SECTOR_BYTES),
  zeroedPage: (bytes, random) => zero(bytes, random, PAGE_BYTES),
  zeroedTail: (bytes, random) => bytes.fill(0, random.below(bytes.length)),
  randomRun: (bytes, random) => {
    const run = random.bytes(1 + random.below(64));
    bytes.set(run, random.below(bytes.length - run.length));
    return bytes;
  },
  twoBits: (bytes, random) => flip(flip(bytes, random), random),
  splicedOther: (bytes, random, other) => {
    const start = random.below(bytes.length);
    bytes.set(other.subarray(start, start + 1 + random.below(bytes.length)), start);
    return bytes;
  },
  otherObject: (bytes, random, other) => {
    bytes.set(other);
    return random.chance(0.5) ? bytes : flip(bytes, random);
  },
  otherPayload: (bytes, _random, other) => {
    bytes.set(other.subarray(0, -TRAILER_BYTES));
    return bytes;
  },
  shifted: (bytes, random) => {
    const by = 1 + random.below(PAGE_BYTES);
    return bytes.copyWithin(by, 0, bytes.length - by);
  },
  movedPage: (bytes, random) => {
    const pages = Math.floor(bytes.length / PAGE_BYTES);
    const from = random.below(pages) * PAGE_BYTES;
    return bytes.copyWithin(random.below(pages) * PAGE_BYTES, from, from + PAGE_BYTES);
  },
  otherVersion: (bytes, random) => {
    const trailer = bytes.subarray(-TRAILER_BYTES);
    // Version and flags.
    trailer[4] = random.below(256);
    trailer[5] = random.below(2);
    return withTrailerChecksum(bytes);
  },
  unsealed: (bytes) => bytes.fill(0, bytes.length - TRAILER_BYTES),
  randomTrailer: (bytes, random) => {
    const trailer = bytes.subarray(-TRAILER_BYTES);
    trailer.set(random.bytes(TRAILER_BYTES));
    return bytes;
  },
  forgedTrailer: (bytes, random) => {
    const trailer = bytes.subarray(-TRAILER_BYTES);
    // One field of the trailer, or everything but the magic number.
    const start = random.pick([4, 5, 6, 8, 16, 48, 56]);
    const end = random.chance(0.5) ? start + 1 : TRAILER_BYTES;
    trailer.set(random.bytes(end - start), start);
    trailer.set(MAGIC);
    return withTrailerChecksum(bytes);
  },
};

/** Flips a bit. */
export function flip(
  bytes: Uint8Array<ArrayBuffer>,
  random: SeededRandom,
): Uint8Array<ArrayBuffer> {
  const bit = random.below(bytes.length * 8);
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ 1 << (bit & 7);
  return bytes;
}

function zero(
  bytes: Uint8Array<ArrayBuffer>,
  random: SeededRandom,
  unit: number,
): Uint8Array<ArrayBuffer> {
  const start = random.below(Math.ceil(bytes.length / unit)) * unit;
  return bytes.fill(0, start, start + unit);
}

function withTrailerChecksum(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const trailer = bytes.subarray(-TRAILER_BYTES);
  new DataView(bytes.buffer).setUint32(bytes.length - 4, crc32(trailer.subarray(0, 60)), true);
  return bytes;
}
