import { assertEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { sha256 } from "../../../src/base/digest.ts";
import { runs } from "../../support/runs.ts";

Deno.test("sha256() of FIPS 180's examples", () => {
  const encoder = new TextEncoder();
  assertEquals(
    sha256(encoder.encode("abc")).toHex(),
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
  assertEquals(
    sha256().toHex(),
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
  );
});

Deno.test("sha256() hashes the concatenation of its parts", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 80 })), async (parts) => {
      const whole = Uint8Array.from(parts.flatMap((part) => [...part]));
      const expected = new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
      assertEquals(sha256(...parts), expected);
    }),
    runs(100),
  );
});
