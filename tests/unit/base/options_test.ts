import { assertEquals, assertThrows } from "@std/assert";
import {
  checkNotNullish,
  checkNumber,
  checkOptionKeys,
  nearestName,
  typeInWords,
} from "../../../src/base/options.ts";

const KNOWN = ["salt", "extraKey", "deadlineMs", "signal", "base_path"];

for (
  const [mistyped, meant] of [
    ["Salt", "salt"],
    ["salts", "salt"],
    ["slat", "salt"],
    ["extra_key", "extraKey"],
    ["deadlineMS", "deadlineMs"],
    ["deadline", "deadlineMs"],
    ["matchDeadlineMs", "deadlineMs"],
    ["basePath", "base_path"],
    ["tenant", undefined],
    ["x", undefined],
    ["", undefined],
    ["a".repeat(100_000), undefined],
  ] as const
) {
  Deno.test(`nearestName() of ${JSON.stringify(mistyped.slice(0, 20))} is ${meant}`, () => {
    assertEquals(nearestName(mistyped, KNOWN), meant);
  });
}

Deno.test("checkOptionKeys() names the unknown key and the nearest known one", () => {
  checkOptionKeys("match() options", {}, KNOWN);
  checkOptionKeys("match() options", { salt: "", signal: undefined }, KNOWN);
  const check = (options: unknown) => () => checkOptionKeys("match() options", options, KNOWN);
  assertThrows(
    check({ salt: "a", deadlinesMs: 3 }),
    TypeError,
    'match() options must not have the key "deadlinesMs": did you mean deadlineMs?',
  );
  assertThrows(
    check({ tenant: "alice" }),
    TypeError,
    'must not have the key "tenant": expected salt, extraKey, deadlineMs, signal, base_path',
  );
  for (const [options, words] of [[null, "null"], ["a", "a string"], [[1], "an array"]] as const) {
    assertThrows(check(options), TypeError, `must be an object: received ${words}`);
  }
});

Deno.test("typeInWords() shows types, not values", () => {
  const values = [undefined, null, "secret", 7, 1n, true, [], [1], {}, { k: 1, v: 2 }];
  assertEquals([...values, new Float32Array(1), () => {}].map(typeInWords), [
    "undefined",
    "null",
    "a string",
    "a number",
    "a bigint",
    "a boolean",
    "an empty array",
    "an array",
    "an empty object",
    "an object with k, v",
    "a Float32Array",
    "a function",
  ]);
  assertEquals(typeInWords(Object.create(null)), "an empty object");
});

Deno.test("checkNumber() accepts numbers within bounds, not numeric strings", () => {
  const check = (value: unknown, range: Parameters<typeof checkNumber>[2]) => () =>
    checkNumber("deadlineMs", value, range);
  check(0, { minimum: 0 })();
  check(Infinity, { minimum: 0 })();
  check(3, { minimum: 0, maximum: 3, multipleOf: 1 })();
  const least = "deadlineMs must be a number of at least 0: received";
  assertThrows(check(-1, { minimum: 0 }), RangeError, `${least} -1`);
  assertThrows(check(NaN, { minimum: 0 }), RangeError, `${least} NaN`);
  assertThrows(check("200", { minimum: 0 }), TypeError, `${least} a string`);
  assertThrows(check(null, {}), TypeError, "must be a number: received null");
  for (const value of [1.5, 2 ** 53, 4]) {
    const range = { minimum: 0, maximum: 3, multipleOf: 1 };
    assertThrows(check(value, range), RangeError, `an integer from 0 to 3: received ${value}`);
  }
});

Deno.test("checkNotNullish() distinguishes a missing key from one without a value", () => {
  checkNotNullish("put() options", {}, ["salt"]);
  checkNotNullish("put() options", { salt: "", other: undefined }, ["salt"]);
  for (const salt of [undefined, null]) {
    assertThrows(
      () => checkNotNullish("put() options", { salt }, ["salt"]),
      TypeError,
      `put() options must have a value for salt, or not have the key: received ${salt}`,
    );
  }
});
