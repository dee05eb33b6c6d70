import { assertEquals } from "@std/assert";
import { acceptsShortObjects, hasVariableLength } from "../../../src/l2/adapter_answers.ts";

Deno.test("capabilities count under the names of 0.1 and under the current ones", () => {
  assertEquals(
    [{}, { loadsShorter: true }, { acceptsShortObjects: true }].map(acceptsShortObjects),
    [
      false,
      true,
      true,
    ],
  );
  assertEquals([{}, { hidesLengths: true }, { variableLength: true }].map(hasVariableLength), [
    false,
    true,
    true,
  ]);
});
