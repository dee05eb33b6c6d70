import type { WriterOptions } from "./writer_options.ts";
import { WriterProcess } from "./writer_process.ts";

/** What became of a writer whose system calls were watched. */
export interface WatchedWriter {
  /** It did its work and ended. */
  readonly hasSurvived: boolean;
  /** Objects of which it had said that they are stored. */
  readonly acknowledged: ReadonlySet<number>;
  /** Its calls, in order of their beginning: name and arguments, file descriptors with paths. */
  readonly calls: readonly string[];
  /** The one at which it was killed; left out if it survived. */
  readonly killedAt?: string;
}

/** How a writer is watched. */
export interface WatchOptions {
  /** Names of the system calls. */
  readonly systemCalls: readonly string[];
  /** The call of a thread, counted from 1 since the writer was let go, at which it is killed. */
  readonly killAt?: number;
  /** A file for the trace. */
  readonly tracePath: string;
}

/** Whether system calls of processes can be tampered with here: strace is there and may trace. */
export async function canInject(): Promise<boolean> {
  try {
    const args = ["-o", "/dev/null", "true"];
    return (await new Deno.Command("strace", { args, stderr: "null" }).output()).success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Runs a writer under strace, which kills it where a thread enters a call, before that is made. */
export async function watchWriter(
  options: WriterOptions,
  { systemCalls, killAt, tracePath }: WatchOptions,
): Promise<WatchedWriter> {
  // A name with a question mark may be unknown to this processor.
  const names = systemCalls.map((name) => `?${name}`).join();
  const inject = killAt === undefined ? [] : ["-e", `inject=${names}:signal=KILL:when=${killAt}`];
  await using writer = await WriterProcess.start(options);
  const args = ["-f", "-y", "-s", "0", "-o", tracePath, "-e", `trace=${names}`, ...inject];
  const tracer = new Deno.Command("strace", {
    args: [...args, "-p", String(writer.pid)],
    stderr: "piped",
  }).spawn();
  const messages = tracer.stderr.getReader();
  // It says that it has attached: from now on calls count.
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
