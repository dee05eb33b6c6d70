const encoder = new TextEncoder();

/** Prints a line. */
export function print(text: string): void {
  Deno.stdout.writeSync(encoder.encode(`${text}\n`));
}

/** Prints a line where errors go. */
export function printError(text: string): void {
  Deno.stderr.writeSync(encoder.encode(`${text}\n`));
}
