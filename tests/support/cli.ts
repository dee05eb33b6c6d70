import { runCommand } from "../../src/cli/command.ts";
import { kvtier } from "../../src/cli/commands.ts";
import type { CliHost } from "../../src/cli/host.ts";
import { concatParts } from "../../src/base/byte_parts.ts";
import { systemClock } from "../../src/base/clock.ts";
import type { ObjectKey } from "../../src/keys/object_key.ts";
import { openAdapterRegistry } from "../../src/known_adapters.ts";
import { checkConfig, type L2Config } from "../../src/l2/adapter_config.ts";
import { type GuardedAdapter, openGuarded } from "../../src/l2/open_adapter.ts";
import { testLayout } from "./objects.ts";
import { sealedObject } from "./sealed_objects.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../src/l2/adapter_status.ts";

/** What a run of `kvtier` left behind. */
export interface CliResult {
  /** Exit code. */
  readonly code: number;
  /** Text on stdout. */
  readonly out: string;
  /** Text on stderr. */
  readonly err: string;
}

/** A run of `kvtier`: its host, with the texts so far. */
export interface CliRun {
  readonly host: CliHost;
  readonly texts: { out: string; err: string };
  /** All bytes on stdout. */
  readonly bytes: Uint8Array[];
}

/** A host that keeps what is written; without a terminal unless `replacements` say so. */
export function testHost(replacements: Partial<CliHost> = {}): CliRun {
  const texts = { out: "", err: "" };
  const bytes: Uint8Array[] = [];
  const decoder = new TextDecoder();
  const host: CliHost = {
    out: (chunk) => {
      bytes.push(chunk.slice());
      texts.out += decoder.decode(chunk);
    },
    err: (chunk) => void (texts.err += decoder.decode(chunk)),
    read: () => Promise.resolve(null),
    isOutTerminal: false,
    isErrTerminal: false,
    hasColours: true,
    columns: () => 80,
    signal: new AbortController().signal,
    clock: systemClock,
    timeouts: DEFAULT_ADAPTER_TIMEOUTS,
    ...replacements,
  };
  return { host, texts, bytes };
}

/** Runs `kvtier` in this process. */
export async function runKvtier(
  args: readonly string[],
  replacements: Partial<CliHost> = {},
): Promise<CliResult> {
  const { host, texts } = testHost(replacements);
  const code = await runCommand("kvtier", kvtier, args, host);
  return { code, ...texts };
}

/** Runs `kvtier` with `--json`; stdout must be one document. */
export async function runForJson(
  args: readonly string[],
  replacements: Partial<CliHost> = {},
  // deno-lint-ignore no-explicit-any -- tests look into documents of many shapes
): Promise<CliResult & { readonly json: any }> {
  const result = await runKvtier([...args, "--json"], replacements);
  return { ...result, json: JSON.parse(result.out) };
}

/** The option for an adapter. */
export function l2(config: Readonly<Record<string, unknown>>): [string, string] {
  return ["--l2-adapter", JSON.stringify(config)];
}

/** Opens an adapter as a command does. */
export async function openGuard(config: L2Config): Promise<GuardedAdapter> {
  const registry = await openAdapterRegistry({});
  return await openGuarded(await checkConfig(registry, config), { registry });
}

/** Stores objects of artificial bytes with their trailers. */
export async function fillStore(
  config: L2Config,
  keys: readonly ObjectKey[],
  payloadBytes = 1000,
): Promise<void> {
  await using store = await openGuard(config);
  const layout = testLayout(payloadBytes);
  for (let at = 0; at < keys.length; at += 256) {
    const batch = keys.slice(at, at + 256);
    const { done } = await store.guard.store(batch.map((key) => sealedObject(key, layout)));
    if (done.popcount() < batch.length) throw new Error(`Not stored: ${store.guard.lastError}`);
  }
}

/** All intact objects of an adapter: their keys and bytes in hexadecimal digits. */
export async function contentsOf(config: L2Config): Promise<ReadonlyMap<string, string>> {
  await using store = await openGuard(config);
  const { guard } = store;
  const contents = new Map<string, string>();
  const listed = await Array.fromAsync(guard.list());
  for (let at = 0; at < listed.length; at += 256) {
    const batch = listed.slice(at, at + 256).map(({ key, byteLength, loadBytes = byteLength }) => ({
      key,
      byteLength: loadBytes,
      parts: [new Uint8Array(loadBytes)],
    }));
    await guard.lookup(batch.map(({ key }) => key), { prefix: false });
    const { done } = await guard.load(batch);
    for (const { key, parts } of done.gather(batch)) {
      contents.set(key.id, concatParts(parts).toHex());
    }
  }
  return contents;
}
