import { GIB, MIB } from "../base/units.ts";
import { failFor } from "../base/config_error.ts";

/** Milliseconds of a day. */
export const DAY_MS = 86_400_000;

const BYTE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kib: 1024,
  mib: MIB,
  gib: GIB,
  tib: 1024 * GIB,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
};

const TIME_UNITS: Readonly<Record<string, number>> = {
  "": DAY_MS,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: DAY_MS,
  w: 7 * DAY_MS,
};

/** Formats bytes with three significant digits. */
export function bytesInWords(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = value >= 100 || unit === 0 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** Formats a duration in milliseconds. */
export function timeInWords(ms: number): string {
  if (ms < 1_000) return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)} min`;
  return ms < DAY_MS ? `${Math.round(ms / 3_600_000)} h` : `${Math.round(ms / DAY_MS)} days`;
}

/** Formats a time reported by an adapter, which may be out of range. */
export function dateOf(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? "at an invalid time" : date.toISOString();
}

/**
 * Parses a number of bytes: `500MiB`, `2GB`, `1024`.
 *
 * @throws {ConfigError} If it is none.
 */
export function parseBytes(option: string, text: string): number {
  return parse(option, text, BYTE_UNITS, "a size, like 500MiB or 20GiB");
}

/**
 * Parses a duration, in days unless it has a unit; returns milliseconds.
 *
 * @throws {ConfigError} If it is none.
 */
export function parseAge(option: string, text: string): number {
  return parse(option, text, TIME_UNITS, "an age, like 30d, 12h or 90m");
}

/**
 * Parses a positive integer.
 *
 * @throws {ConfigError} If it is none.
 */
export function parseCount(option: string, text: string): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value > 0) return value;
  return failFor("kvtier")(`--${option}`, "an integer of at least 1", text);
}

function parse(
  option: string,
  text: string,
  units: Readonly<Record<string, number>>,
  expected: string,
): number {
  const [, digits = "", unit = ""] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim()) ?? [];
  const factor = Object.hasOwn(units, unit.toLowerCase()) ? units[unit.toLowerCase()] : undefined;
  const value = Number(digits) * (factor ?? NaN);
  if (digits !== "" && Number.isFinite(value)) return value;
  return failFor("kvtier")(`--${option}`, expected, text);
}
