// deno-lint-ignore-file no-console -- a program prints
/**
 * Prints the value of DENO_WEBGPU_BACKEND for the tests: what is set, else the native backend of
 * the system. Left to itself, Deno 2.9 on Linux loads EGL beside Vulkan and unloads it with each
 * test module; at times that frees what belongs to a thread that is just ending, and the process
 * aborts after all tests have passed.
 */
const native: Partial<Record<typeof Deno.build.os, string>> = {
  linux: "vulkan",
  darwin: "metal",
  windows: "dx12",
};

console.log(Deno.env.get("DENO_WEBGPU_BACKEND") || (native[Deno.build.os] ?? "vulkan"));
