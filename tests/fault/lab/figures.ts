/** Prints the figures of a fault lab test on one line. */
export function printFigures(
  row: string,
  figures: Readonly<Record<string, string | number | Readonly<Record<string, number>>>>,
): void {
  // deno-lint-ignore no-console -- prints the figures
  console.log(`lab: ${JSON.stringify({ row, ...figures })}`);
}
