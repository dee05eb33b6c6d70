import { type Clock, systemClock } from "../base/clock.ts";
import { type AdapterTimeouts, DEFAULT_ADAPTER_TIMEOUTS } from "../l2/adapter_status.ts";

/** What a command runs in: its streams, its terminal, its time. */
export interface CliHost {
  /** Writes to stdout. */
  readonly out: (bytes: Uint8Array) => void;
  /** Writes to stderr. */
  readonly err: (bytes: Uint8Array) => void;
  /** Reads the next bytes of stdin; resolves to their number, `null` at the end. */
  readonly read: (target: Uint8Array) => Promise<number | null>;
  /** Whether stdout is a terminal. */
  readonly isOutTerminal: boolean;
  /** Whether stderr is a terminal. */
  readonly isErrTerminal: boolean;
  /** Whether colours are welcome on a terminal. */
  readonly hasColours: boolean;
  /** Width of the terminal in characters. */
  readonly columns: () => number;
  /** Aborts when the user stops the command. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
  /** Deadlines of calls to adapters. */
  readonly timeouts: AdapterTimeouts;
}

/** The process: its standard streams, and SIGINT and SIGTERM as `signal`. */
export function processHost(): CliHost & Disposable {
  const stop = new AbortController();
  const onSignal = (): void => {
    // A second signal does not wait for anything.
    if (stop.signal.aborted) Deno.exit(1);
    stop.abort(new DOMException("Interrupted", "AbortError"));
  };
  const signals: readonly Deno.Signal[] = Deno.build.os === "windows"
    ? ["SIGINT"]
    : ["SIGINT", "SIGTERM"];
  for (const signal of signals) Deno.addSignalListener(signal, onSignal);
  return {
    out: (bytes) => writeAll(Deno.stdout, bytes),
    err: (bytes) => writeAll(Deno.stderr, bytes),
    read: (target) => Deno.stdin.read(target),
    isOutTerminal: Deno.stdout.isTerminal(),
    isErrTerminal: Deno.stderr.isTerminal(),
    // Deno reads NO_COLOR itself, which needs no permission.
    hasColours: !Deno.noColor,
    // A terminal that nothing has sized has no columns.
    columns: () => (Deno.stderr.isTerminal() && Deno.consoleSize().columns) || 80,
    signal: stop.signal,
    clock: systemClock,
    timeouts: DEFAULT_ADAPTER_TIMEOUTS,
    [Symbol.dispose]() {
      for (const signal of signals) Deno.removeSignalListener(signal, onSignal);
    },
  };
}

/** A pipe may take less than all bytes at once. */
function writeAll(stream: { writeSync(bytes: Uint8Array): number }, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.byteLength;) done += stream.writeSync(bytes.subarray(done));
}
