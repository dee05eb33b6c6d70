import type { WriterOptions } from "./writer_options.ts";
import { WriterProcess } from "./writer_process.ts";

/** Result of a traced writer. */
export interface WatchedWriter {
  /** Whether it finished its work. */
  readonly hasSurvived: boolean;
  /** Objects that it had reported as stored. */
  readonly acknowledged: ReadonlySet<number>;
  /** Its calls in order of their start: name and arguments, file descriptors with paths. */
  readonly calls: readonly string[];
  /** The call at which it was killed, unless it survived. */
  readonly killedAt?: string;
}

/** Options of a traced writer. */
export interface WatchOptions {
  /** Names of the system calls to trace. */
  readonly systemCalls: readonly string[];
  /** The call of a thread at which it is killed, counted from 1 after the start signal. */
  readonly killAt?: number;
  /** Path of the trace. */
  readonly tracePath: string;
}

/** Whether strace is installed and has permission to trace. */
export async function canInject(): Promise<boolean> {
  try {
    const args = ["-o", "/dev/null", "true"];
    return (await new Deno.Command("strace", { args, stderr: "null" }).output()).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Runs a writer under strace, which kills it when a thread enters a call, before it executes. */
export async function watchWriter(
  options: WriterOptions,
  { systemCalls, killAt, tracePath }: WatchOptions,
): Promise<WatchedWriter> {
  // A name with a question mark may be missing on this architecture.
  const names = systemCalls.map((name) => `?${name}`).join();
  const inject = killAt === undefined ? [] : ["-e", `inject=${names}:signal=KILL:when=${killAt}`];
  await using writer = await WriterProcess.start(options);
  const args = ["-f", "-y", "-s", "0", "-o", tracePath, "-e", `trace=${names}`, ...inject];
  const tracer = new Deno.Command("strace", {
    args: [...args, "-p", String(writer.pid)],
    stderr: "piped",
  }).spawn();
  const messages = tracer.stderr.getReader();
  // strace has attached: calls are counted from here.
  await messages.read();
  await writer.go();
  const hasSurvived = await writer.ended();
  while (!(await messages.read()).done);
  await tracer.status;
  const calls: string[] = [];
  const callsOfThread = new Map<string, number>();
  let killedAt: string | undefined;
  for (const line of (await Deno.readTextFile(tracePath)).split("\n")) {
    const [, thread = "", call] = /^(\d+) +(\w+\(.*)/.exec(line) ?? [];
    if (call === undefined) continue;
    const count = (callsOfThread.get(thread) ?? 0) + 1;
    callsOfThread.set(thread, count);
    if (count === killAt) killedAt ??= call;
    calls.push(call);
  }
  const { acknowledged } = writer;
  return { hasSurvived, acknowledged, calls, ...(hasSurvived ? {} : { killedAt: killedAt ?? "" }) };
}
