import { assert, assertEquals } from "@std/assert";
import {
  errnoOf,
  isFull,
  isLockUnsupported,
  isNoObject,
} from "../../../../adapters/_shared/errno.ts";

Deno.test("errnoOf() finds the code in all forms of errors", () => {
  const withCode = Object.assign(new Error("x"), { code: "EDQUOT" });
  assertEquals(errnoOf(withCode), "EDQUOT");
  assertEquals(errnoOf(new Error("ENFILE: file table overflow, open '/x'")), "ENFILE");
  assertEquals(errnoOf(new Error("no error of the system")), undefined);
  assertEquals(errnoOf("EIO"), undefined);
});

Deno.test({
  name: "an error without a code is recognized by its number",
  ignore: Deno.build.os !== "linux",
  fn() {
    // As Deno 2.9.6 formats them, with or without a path after the number.
    assert(isFull(new Error("Disk quota exceeded (os error 122)")));
    assert(isFull(new Error("File too large (os error 27), writefile '/x'")));
    assert(isLockUnsupported(new Error("No locks available (os error 37)")));
    assert(isNoObject(new Error("Stale file handle (os error 116): open '/x'")));
    assertEquals(errnoOf(new Error("Too many open files in system (os error 23)")), "ENFILE");
  },
});
