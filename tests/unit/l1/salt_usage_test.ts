import { assertEquals } from "@std/assert";
import { SaltUsage } from "../../../src/l1/salt_usage.ts";

Deno.test("SaltUsage sums by salt, and forgets a salt without bytes", () => {
  const usage = new SaltUsage();
  assertEquals(usage.of("a"), 0);
  usage.add("a", 256);
  usage.add("a", 512);
  usage.add("b", 256);
  usage.add("b", -256);
  assertEquals([usage.of("a"), usage.of("b")], [768, 0]);
  assertEquals([...usage.all()], [["a", 768]]);
});
