import type { Served } from "./engine.ts";

/** Result of the demo, which `--json` prints. */
export interface DemoResult {
  /** Description of the device. */
  readonly device: string;
  /** Whether software stands in for a GPU. */
  readonly fallback: boolean;
  /** Tokens of the prompt, without the question. */
  readonly promptTokens: number;
  /** Tokens per chunk. */
  readonly chunkTokens: number;
  /** Measurements of the four requests. */
  readonly runs: {
    readonly cold: Served;
    readonly l1: Served;
    readonly l2: Served;
    readonly changed: Served;
  };
  /** Requests that this process did not serve to the end, by reason. */
  readonly misses: Readonly<Record<string, number>>;
  /** Whether logits from cached K and V equal computed ones bit for bit. */
  readonly identical: boolean;
  /** Bytes of all files in the cache directory. */
  readonly bytesOnDisk: number;
}

/** Formats the result as a table. */
export function formatReport(result: DemoResult, bytesPerToken: number): string {
  const { runs, promptTokens, identical, bytesOnDisk } = result;
  const rows: [label: string, run: Served][] = [
    ["cold: nothing cached, everything computed", runs.cold],
    ["warm: same prompt, new question, from device memory", runs.l1],
    ["warm: the same in a new process, from disk", runs.l2],
    ["one token changed in the middle of the prompt", runs.changed],
  ];
  const header = ["", "tokens reused", "first token", "speed-up", "bytes moved"];
  const cells = rows.map(([label, run]) => [
    label,
    `${formatCount(run.hitTokens)} of ${formatCount(promptTokens)}`,
    formatMs(run.ttftMs),
    `${(runs.cold.ttftMs / run.ttftMs).toFixed(1)}x`,
    formatBytes(run.hitTokens * bytesPerToken),
  ]);
  const explained = rows.map(([label, { explanation }]) => `${label}:\n  ${explanation}`);
  const misses = Object.entries(result.misses).filter(([, count]) => count > 0)
    .map(([reason, count]) => `${reason} ${count}`).join(", ");
  const verdict = identical
    ? `Logits are identical bit for bit, computed or cached: sha256 ${
      runs.cold.logitsSha256.slice(0, 16)
    }…`
    : "Logits DIFFER between computed and cached K and V: this is a bug, please report it.";
  return `${table([header, ...cells])}\n\n${explained.join("\n")}\n` +
    `Misses by reason: ${misses === "" ? "none" : misses}\n\n${verdict}\n${
      formatBytes(bytesOnDisk)
    } on disk.\n\n` +
    "With a real model: deno task chat --model owner/name";
}

/** A progress bar on stderr; prints nothing if stderr is not a terminal. */
export function progressBar(label: string): (done: number, total: number) => void {
  if (!Deno.stderr.isTerminal()) return () => {};
  const width = 30;
  return (done, total) => {
    const filled = Math.round(width * done / total);
    const bar = "█".repeat(filled) + "░".repeat(width - filled);
    const percent = String(Math.round(100 * done / total)).padStart(3);
    const line = done < total ? `\r${label} ${bar} ${percent} %` : "\r\x1b[K";
    Deno.stderr.writeSync(new TextEncoder().encode(line));
  };
}

/** Formats a number with thousands separators. */
export function formatCount(value: number): string {
  return value.toLocaleString("en-US");
}

function formatMs(ms: number): string {
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

function formatBytes(bytes: number): string {
  return bytes === 0 ? "-" : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0))
  );
  const lines = rows.map((row) =>
    row.map((cell, column) => {
      const width = widths[column] ?? 0;
      return column === 0 ? cell.padEnd(width) : cell.padStart(width);
    }).join("   ").trimEnd()
  );
  lines.splice(1, 0, widths.map((width) => "─".repeat(width)).join("   "));
  return lines.join("\n");
}
