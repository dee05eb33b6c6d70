/** Prints what a test of the fault lab came to, on one line, for those who quote it. */
export function printFigures(
  row: string,
  figures: Readonly<Record<string, string | number | Readonly<Record<string, number>>>>,
): void {
  // deno-lint-ignore no-console -- what the line is for
  console.log(`lab: ${JSON.stringify({ row, ...figures })}`);
}
