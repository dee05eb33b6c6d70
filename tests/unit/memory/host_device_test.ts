import { assert, assertEquals } from "@std/assert";
import { HostDevice } from "../../../src/memory/host_device.ts";

Deno.test("HostDevice says that it stands in for a GPU", () => {
  using device = new HostDevice();
  assertEquals([device.type, device.isFallback, device.isLost], ["host", true, false]);
});

Deno.test("HostDevice.readBack() hands out a copy: nobody can change the object by it", async () => {
  using device = new HostDevice();
  const { buffer } = device.createSlab(1024);
  assert(buffer instanceof Uint8Array);
  const range = { buffer, byteOffset: 256, byteLength: 512 };
  using readBack = await device.readBack([{ range, tailBytes: 64 }]);
  const [piece, ...rest] = readBack.objects[0] ?? [];
  assertEquals([piece?.byteLength, rest.length], [512 + 64, 0]);
  piece?.fill(1);
  assertEquals(buffer, new Uint8Array(1024));
});

Deno.test("HostDevice.countReadable() has no bound", () => {
  using device = new HostDevice();
  assertEquals(device.countReadable([2 ** 40, 2 ** 40, 4]), 3);
});
