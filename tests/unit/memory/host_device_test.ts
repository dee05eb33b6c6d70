import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { HostDevice } from "../../../src/memory/host_device.ts";

Deno.test("HostDevice says that it stands in for a GPU", () => {
  using device = new HostDevice();
  assertEquals([device.type, device.isFallback, device.isLost], ["host", true, false]);
});

Deno.test("HostDevice.readBack() hands out the object itself, not a copy", async () => {
  using device = new HostDevice();
  const { buffer } = device.createSlab(1024);
  assert(buffer instanceof Uint8Array);
  const range = { buffer, byteOffset: 256, byteLength: 512 };
  using readBack = await device.readBack([{ range, tailBytes: 64 }]);
  const [payload, tail] = readBack.objects[0] ?? [];
  assertStrictEquals(payload?.buffer, buffer.buffer);
  assertEquals([payload?.byteOffset, payload?.byteLength], [256, 512]);
  assertEquals(tail, new Uint8Array(64));
  assert(tail?.buffer !== buffer.buffer);
});

Deno.test("HostDevice.countReadable() has no bound", () => {
  using device = new HostDevice();
  assertEquals(device.countReadable([2 ** 40, 2 ** 40, 4]), 3);
});
