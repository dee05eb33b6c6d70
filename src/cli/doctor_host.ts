import { within } from "../base/clock.ts";
import type { CliHost } from "./host.ts";
import type { Findings } from "./findings.ts";
import { bytesInWords } from "./quantities.ts";

/** Time for the answer of a driver or a worker, in milliseconds. */
const ANSWER_MS = 10_000;
/** Buffers below this size hold few chunks of a large model. */
const SMALL_BUFFER_BYTES = 256 * 2 ** 20;
/** A clock before this time was never set. */
const FIRST_PLAUSIBLE_MS = Date.UTC(2025, 0);

const SOFTWARE = /llvmpipe|swiftshader|software|lavapipe/i;
const PERMISSIONS = ["read", "write", "net", "env", "sys"] as const;

/** Checks what does not depend on an adapter: permissions, clock, workers and the WebGPU device. */
export async function checkHost(findings: Findings, host: CliHost): Promise<void> {
  findings.add(
    "Deno",
    "ok",
    `${Deno.version.deno} on ${Deno.build.os} ${Deno.build.arch}, ${navigator.hardwareConcurrency} cores`,
  );
  await checkPermissions(findings);
  const now = Date.now();
  const isPlausible = now > FIRST_PLAUSIBLE_MS;
  findings.add(
    "clock",
    isPlausible ? "ok" : "wrong",
    `${new Date(now).toISOString()}${
      isPlausible ? "" : ": set it, or ages and signatures are wrong"
    }`,
  );
  await checkWorkers(findings, host);
  await checkDevice(findings, host);
}

async function checkPermissions(findings: Findings): Promise<void> {
  const states = await Promise.all(PERMISSIONS.map(async (name) => {
    return { name, state: (await Deno.permissions.query({ name })).state };
  }));
  const granted = states.filter(({ state }) => state === "granted").map(({ name }) => name);
  const others = states.filter(({ state }) => state !== "granted").map(({ name }) => name);
  const rest = others.length === 0 ? "" : `; not or only in part: ${others.join(", ")}`;
  findings.add("permissions", "ok", `${granted.join(", ") || "none"}${rest}`);
  const { state } = await Deno.permissions.query({ name: "sys", kind: "statfs" });
  if (state === "granted") return;
  const text = "without --allow-sys=statfs the fs adapter cannot keep some of the disk free";
  findings.add("permissions", "note", text);
}

async function checkWorkers(findings: Findings, { clock }: CliHost): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const source = "data:text/javascript,self.postMessage('started')";
  const worker = new Worker(source, { type: "module", name: "kvtier doctor" });
  worker.onmessage = () => resolve("started");
  worker.onerror = (event) => {
    event.preventDefault();
    resolve(event.message);
  };
  const start = clock.now();
  let answer = "no answer";
  await within(clock, promise.then((text) => void (answer = text)), ANSWER_MS);
  worker.terminate();
  const isRunning = answer === "started";
  const text = isRunning
    ? `a worker started in ${(clock.now() - start).toFixed(0)} ms`
    : `${answer}: compression and direct I/O run on the main thread, or not at all`;
  findings.add("workers", isRunning ? "ok" : "slow", text);
}

async function checkDevice(findings: Findings, { clock }: CliHost): Promise<void> {
  const none =
    "L1 is in host memory, and engines on WebGPU do not run. On Linux, install a driver " +
    "and libvulkan1";
  // Browsers and Deno may lack it.
  const gpu = (navigator as { gpu?: GPU }).gpu;
  if (gpu === undefined) return findings.add("device", "slow", `no WebGPU: ${none}`);
  let adapter: GPUAdapter | null = null;
  const asked = gpu.requestAdapter().then((found) => void (adapter = found), () => {});
  await within(clock, asked, ANSWER_MS);
  const found = adapter as GPUAdapter | null;
  if (found === null) return findings.add("device", "slow", `no WebGPU adapter: ${none}`);
  const { info, limits, features } = found;
  const name = [info.vendor, info.architecture, info.description].filter((part) => part).join(" ");
  const isSoftware = SOFTWARE.test(name) ||
    (info as { isFallbackAdapter?: boolean }).isFallbackAdapter === true;
  findings.add(
    "device",
    isSoftware ? "slow" : "ok",
    isSoftware ? `${name}: a software driver, which computes on the CPU` : name || "unnamed",
  );
  const { maxBufferSize, maxStorageBufferBindingSize } = limits;
  findings.add(
    "device limits",
    maxBufferSize < SMALL_BUFFER_BYTES ? "slow" : "ok",
    `buffers up to ${bytesInWords(maxBufferSize)}, ` +
      `bindings up to ${bytesInWords(maxStorageBufferBindingSize)}`,
  );
  const hasF16 = features.has("shader-f16");
  const without = "missing: engines compute f16 models as f32, or not at all";
  findings.add("shader-f16", hasF16 ? "ok" : "note", hasF16 ? "available" : without);
}
