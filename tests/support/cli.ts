import { runCommand } from "../../src/cli/command.ts";
import { kvtier } from "../../src/cli/commands.ts";
import type { CliHost } from "../../src/cli/host.ts";
import { systemClock } from "../../src/base/clock.ts";
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
    input: () => ReadableStream.from([]),
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
