import type { AdapterCapabilities } from "./contract.ts";
import { type ConfigFields, type Configurable, describeField } from "./config.ts";

const HEADER = ["Key", "Type", "Default", "Meaning"];

/** Describes capabilities in words. */
export function promisesOf({ durable, shared, evicts }: AdapterCapabilities): string {
  return [
    `objects ${durable ? "survive" : "end with"} the process`,
    `${shared ? "other processes see them" : "no other process sees them"}`,
    ...evicts ? ["it evicts by itself"] : [],
  ].join(", ");
}

/** Configuration keys of an adapter as a Markdown table. */
export function adapterTable(module: Configurable): string {
  const rows = rowsOf(module.config, "");
  const widths = HEADER.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0))
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  return [line(HEADER), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)]
    .join("\n");
}

function rowsOf(fields: ConfigFields, prefix: string): string[][] {
  return Object.entries(fields).flatMap(([key, field]) => {
    const name = prefix + key;
    const own = field.type === "object" ? rowsOf(field.fields, `${name}.`) : [];
    const type = field.type === "object" ? "object" : describeField(field);
    const byDefault = field.default === undefined ? "" : `\`${JSON.stringify(field.default)}\``;
    return [[`\`${name}\``, type, field.required ? "required" : byDefault, field.help], ...own];
  });
}
