import { assertEquals, assertThrows } from "@std/assert";
import { type Quota, QuotaRegistry } from "../../../src/eviction/quota_registry.ts";

Deno.test("QuotaRegistry gives a salt its own quota, or the default", () => {
  const quotas = new QuotaRegistry();
  assertEquals(quotas.default, {});
  assertEquals(quotas.effective("a"), {});

  quotas.setDefault({ l1Bytes: 10 });
  quotas.set("a", { l2Bytes: 0 });

  assertEquals(quotas.default, { l1Bytes: 10 });
  assertEquals(quotas.get("a"), { l2Bytes: 0 });
  assertEquals(quotas.effective("a"), { l2Bytes: 0 });
  assertEquals(quotas.get("b"), undefined);
  assertEquals(quotas.effective("b"), { l1Bytes: 10 });
});

Deno.test("QuotaRegistry.delete() gives a salt the default again", () => {
  const quotas = new QuotaRegistry();
  quotas.set("a", { l1Bytes: 1 });

  assertEquals(quotas.delete("a"), true);
  assertEquals(quotas.delete("a"), false);
  assertEquals(quotas.get("a"), undefined);
  assertEquals(quotas.effective("a"), {});
});

Deno.test("QuotaRegistry.list() is in the order of the salts", () => {
  const quotas = new QuotaRegistry();
  for (const salt of ["b", "", "a"]) quotas.set(salt, { l1Bytes: 1 });
  assertEquals(quotas.list().map(({ salt }) => salt), ["", "a", "b"]);
  assertEquals(quotas.list()[0]?.quota, { l1Bytes: 1 });
});

Deno.test("QuotaRegistry keeps its own copy of a quota", () => {
  const quotas = new QuotaRegistry();
  const quota = { l1Bytes: 1, l2Bytes: 2 };
  quotas.set("a", quota);
  quota.l1Bytes = 100;
  assertEquals(quotas.effective("a"), { l1Bytes: 1, l2Bytes: 2 });
});

Deno.test("QuotaRegistry refuses what is no number of bytes, and says what it got", () => {
  const quotas = new QuotaRegistry();
  const wrong = [-1, 0.5, NaN, Infinity, 2 ** 53];
  for (const name of ["l1Bytes", "l2Bytes"]) {
    for (const bytes of wrong) {
      const quota: Quota = { [name]: bytes };
      const message = `${name} must be an integer of at least 0: received ${bytes}`;
      assertThrows(() => quotas.set("a", quota), RangeError, message);
      assertThrows(() => quotas.setDefault(quota), RangeError, message);
    }
  }
  const misread: [unknown, string][] = [
    [{ l1Bytes: "7" }, "quota.l1Bytes must be an integer of at least 0: received a string"],
    [{ l1bytes: 7 }, 'quota must not have the key "l1bytes": did you mean l1Bytes?'],
    [7, "quota must be an object: received a number"],
  ];
  for (const [quota, message] of misread) {
    assertThrows(() => quotas.set("a", quota as Quota), TypeError, message);
    assertThrows(() => quotas.setDefault(quota as Quota), TypeError, message);
  }
  assertEquals(quotas.list(), []);
  assertEquals(quotas.default, {});
});

Deno.test("QuotaRegistry refuses a salt that no object can have", () => {
  const quotas = new QuotaRegistry();
  assertThrows(() => quotas.set("a\0b", {}), TypeError, "received U+0000");
  for (const lost of [undefined, null, 7]) {
    const salt = lost as unknown as string;
    assertThrows(() => quotas.set(salt, {}), TypeError, "Cache salt must be a string");
    assertThrows(() => quotas.get(salt), TypeError, "Cache salt must be a string");
    assertThrows(() => quotas.delete(salt), TypeError, "Cache salt must be a string");
  }
  assertThrows(() => quotas.set("x".repeat(129), {}), RangeError, "received 129");
  assertEquals(quotas.list(), []);
});

Deno.test("QuotaRegistry lists salts as they were given", () => {
  const quotas = new QuotaRegistry();
  const salts = ["org/user", "alice@example.com", "a\\b", "租户 🤖", "e\u0301", "\u00e9", "a%40b"];
  for (const [l1Bytes, salt] of salts.entries()) quotas.set(salt, { l1Bytes });
  assertEquals(quotas.list().map(({ salt }) => salt), salts.toSorted());
  for (const [l1Bytes, salt] of salts.entries()) assertEquals(quotas.get(salt), { l1Bytes });
});

Deno.test("QuotaRegistry.onChange() tells which salt changed, until that is ended", () => {
  const quotas = new QuotaRegistry();
  const told: (string | undefined)[] = [];
  const end = quotas.onChange((salt) => told.push(salt));

  quotas.set("a", { l1Bytes: 1 });
  quotas.setDefault({});
  quotas.delete("b");
  quotas.delete("a");
  end();
  quotas.set("a", { l1Bytes: 1 });

  assertEquals(told, ["a", undefined, "a"]);
});

Deno.test("QuotaRegistry knows whether anything is bounded in the adapters", () => {
  const quotas = new QuotaRegistry();
  const states: boolean[] = [];
  quotas.onChange(() => states.push(quotas.boundsL2));
  quotas.set("a", { l1Bytes: 1 });
  quotas.set("a", { l2Bytes: 1 });
  quotas.set("a", { l2Bytes: 2 });
  quotas.set("b", { l2Bytes: 1 });
  quotas.delete("a");
  quotas.delete("a");
  quotas.set("b", {});
  quotas.setDefault({ l2Bytes: 1 });
  quotas.setDefault({});
  assertEquals(states, [false, true, true, true, true, false, true, false]);
});
