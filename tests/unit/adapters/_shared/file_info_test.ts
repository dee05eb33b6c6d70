import { assertEquals } from "@std/assert";
import {
  diskBytesFor,
  diskBytesOf,
  knownCount,
  knownTime,
  sizeOf,
  usedAtOf,
} from "../../../../adapters/_shared/file_info.ts";

const NOW = Date.UTC(2026, 0, 1);
const HOUR = 3_600_000;

Deno.test("a time is valid if it is a date between 1970 and the near future", () => {
  for (const time of [0, 1, NOW - 1, NOW, NOW + HOUR]) {
    assertEquals(knownTime(new Date(time), NOW), time);
    assertEquals(knownTime(time, NOW), time);
  }
  const strange = [
    NOW + HOUR + 1,
    -1,
    8.64e15 + 1,
    9_999_999_999_999_000,
    -Infinity,
    Infinity,
    NaN,
  ];
  for (const time of strange) {
    assertEquals(knownTime(new Date(time), NOW), undefined, `${time}`);
    assertEquals(knownTime(time, NOW), undefined, `${time}`);
  }
  assertEquals([knownTime(null), knownTime(undefined)], [undefined, undefined]);
  assertEquals([usedAtOf({ mtime: new Date(NaN) }), usedAtOf({ mtime: null })], [0, 0]);
});

Deno.test("a file takes the bytes on disk that the file system reports, or those of its size", () => {
  assertEquals([0, 1, 4096, 4097].map(diskBytesFor), [0, 4096, 4096, 8192]);
  // Fully allocated, compressed, and preallocated.
  for (const blocks of [24, 1, 2000]) {
    assertEquals(diskBytesOf({ size: 10_000, blocks }), blocks * 512);
  }
  for (const blocks of [null, 0, NaN, -8, 1.5, 2 ** 52, 2 ** 60]) {
    assertEquals(diskBytesOf({ size: 10_000, blocks }), 12_288, `${blocks}`);
  }
});

Deno.test("sizes and counts are safe integers", () => {
  assertEquals([sizeOf({ size: 5 }), sizeOf({ size: NaN }), sizeOf({ size: -1 })], [5, 0, 0]);
  assertEquals([0, 7, -1, 0.5, 2 ** 53, NaN, "7", null].map(knownCount), [
    0,
    7,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
    undefined,
  ]);
});
