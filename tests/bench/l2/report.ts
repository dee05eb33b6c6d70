import type { BenchOptions } from "./options.ts";
import { OPERATIONS, type Row } from "./row.ts";
import type { Shape } from "./shape.ts";

/** What is measured, as text. */
export function header(options: BenchOptions, adapter: string): string {
  const { shapes, rounds, warmupRounds, maxHitRate, operations, isVerified } = options;
  const lines = [
    ["Adapter", adapter],
    ["Keys/call", list(shapes, ({ numKeys }) => String(numKeys))],
    ["In flight", list(shapes, ({ inFlight }) => String(inFlight))],
    ["Keys/round", list(shapes, ({ numKeys, inFlight }) => String(numKeys * inFlight))],
    ["Data/key", list(shapes, ({ objectBytes }) => size(objectBytes))],
    ["Data/round", list(shapes, (shape) => size(roundBytes(shape)))],
    ["Rounds", `${rounds}, after ${warmupRounds} to warm up`],
    ["Operations", operations.join(", ")],
    ["Max hit rate", String(maxHitRate)],
    ["Verify", isVerified ? "last round" : "skipped"],
  ];
  return lines.map(([name = "", text]) => `${name.padEnd(13)} ${text}`).join("\n");
}

/** The results as tables: GB/s for stores and loads, microseconds a key for lookups; medians. */
export function tables(rows: readonly Row[]): string {
  const own = new Set(rows.map(({ target }) => /^limit-(?!aligned)(.*)/.exec(target)?.[1]));
  const groups = Map.groupBy(rows, ({ target }) => {
    const [, type = ""] = /^(?:kvtier|limit)-(.*)/.exec(target) ?? [];
    return own.has(type) ? type : "";
  });
  return [...groups.values()].map(table).join("\n\n");
}

function table(rows: readonly Row[]): string {
  const targets = [...new Set(rows.map(({ target }) => target))];
  const ours = targets.find((target) => target.startsWith("kvtier-"));
  const hasShare = ours !== undefined && targets.some(isLimit);
  const names = targets.flatMap((name) => name === ours && hasShare ? [name, "of limit"] : [name]);
  const head = ["operation", "data/key", "keys", "unit", ...names];
  const lines = OPERATIONS.flatMap((op) => {
    const shown = rows.filter((row) => row.op === op);
    const groups = Map.groupBy(shown, groupOf);
    return [...groups.values()].map((group) => {
      const { objectBytes, keys, how } = group[0] ?? { objectBytes: 0, keys: 0 };
      const cells = names.map((name) => {
        const isShare = name === "of limit";
        const row = group.find(({ target }) => target === (isShare ? ours : name));
        return isShare ? percent(row?.ofLimit) : cell(row);
      });
      const what = how === undefined ? op : `${op}, ${how}`;
      return [what, size(objectBytes), String(keys), op === "lookup" ? "µs/key" : "GB/s", ...cells];
    });
  });
  return aligned([head, ...lines]);
}

/** A number of bytes as text. */
export function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  const step = Math.min(3, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${Number((bytes / 1024 ** step).toFixed(2))} ${units[step]}`;
}

function groupOf({ objectBytes, keys, how }: Row): string {
  return [objectBytes, keys, how].join();
}

function roundBytes({ objectBytes, numKeys, inFlight }: Shape): number {
  return objectBytes * numKeys * inFlight;
}

function list(shapes: readonly Shape[], textOf: (shape: Shape) => string): string {
  const names = shapes.map(textOf);
  return new Set(names).size === 1 ? names[0] ?? "" : names.join(", ");
}

function cell(row: Row | undefined): string {
  if (row === undefined) return "";
  const value = row.gbps === undefined ? row.usPerKey.toFixed(1) : row.gbps.toFixed(2);
  return isLimit(row.target) && row.concurrency !== undefined
    ? `${value} ×${row.concurrency}`
    : value;
}

function isLimit(target: string): boolean {
  return target.startsWith("limit") && target !== "limit-aligned";
}

function percent(share: number | undefined): string {
  return share === undefined ? "" : `${(100 * share).toFixed(0)} %`;
}

function aligned(lines: readonly (readonly string[])[]): string {
  const widths = lines[0]?.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0)));
  return lines.map((line) =>
    line.map((text, i) => i < 2 ? text.padEnd(widths?.[i] ?? 0) : text.padStart(widths?.[i] ?? 0))
      .join("  ").trimEnd()
  ).join("\n");
}
