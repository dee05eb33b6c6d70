// Fails unless WebGPU runs on hardware; prints the name of the adapter.
const SOFTWARE = /llvmpipe|lavapipe|swiftshader|basic render/i;
const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
const { description = "", device = "", vendor = "", isFallbackAdapter = false } = adapter?.info ??
  {};
const name = description || device || vendor;
if (!adapter) throw new Error("No WebGPU adapter: install the driver and the Vulkan loader");
if (isFallbackAdapter || SOFTWARE.test(name)) {
  throw new Error(`Expected a GPU: received the software adapter ${name}`);
}
// deno-lint-ignore no-console -- a program prints
console.log(name);
