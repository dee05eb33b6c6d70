import { ConfigError } from "../l2/adapter_error.ts";

const encoder = new TextEncoder();

/** Prints a line. */
export function print(text: string): void {
  Deno.stdout.writeSync(encoder.encode(`${text}\n`));
}

/** Runs a command; a user's mistake gets a sentence and exit code 2, not a stack trace. */
export async function runForUser(command: () => Promise<void>): Promise<void> {
  try {
    await command();
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    Deno.stderr.writeSync(encoder.encode(`${error.message}\n`));
    Deno.exitCode = 2;
  }
}
