import { fromFileUrl, join } from "@std/path";
import { waitUntil } from "../../support/wait_until.ts";

/** Options of a {@linkcode hangingMount}. */
export interface HangingMountOptions {
  /** Whether names are case-insensitive. */
  readonly foldsCase?: boolean;
}

/** A FUSE file system that hangs and fails on command. */
export interface HangingMount extends AsyncDisposable {
  /** Its mount point. */
  readonly path: string;
  /** The directory with its files, which never hangs. */
  readonly backing: string;
  /** Makes calls with these names hang; without names, all calls return. */
  hang(...calls: readonly string[]): Promise<void>;
  /** The calls that have hung, with name and path on one line each. */
  hung(): Promise<string[]>;
  /** Whether a call that hung has gone on by itself: what was answered since may have waited. */
  expired(): Promise<boolean>;
  /** Makes a call fail with an error, both given by name. */
  fail(errors: Readonly<Record<string, string>>): Promise<void>;
  /** Makes writes fail that exceed a total number of bytes in all files. */
  limit(bytes: number, error: string): Promise<void>;
}

const PROGRAM = fromFileUrl(new URL("./hanging_fs.py", import.meta.url));

/** Mounts one on an empty directory. Needs root, `/dev/fuse`, and Debian's `python3-fusepy`. */
export async function hangingMount(options: HangingMountOptions = {}): Promise<HangingMount> {
  await using stack = new AsyncDisposableStack();
  const parent = await Deno.makeTempDir({ prefix: "kvtier-fuse-" });
  stack.defer(() => Deno.remove(parent, { recursive: true }));
  const [backing, path, control] = ["backing", "mount", "control"].map((name) =>
    join(parent, name)
  ) as [string, string, string];
  for (const directory of [backing, path, control]) await Deno.mkdir(directory, { mode: 0o700 });
  const args = [PROGRAM, backing, path, control, ...(options.foldsCase ? ["lower"] : [])];
  const program = new Deno.Command("/usr/bin/python3", { args, stdin: "null", stdout: "null" })
    .spawn();
  stack.defer(async () => {
    await Deno.remove(join(control, "hang")).catch(() => {});
    await new Deno.Command("umount", { args: ["-l", path] }).output();
    // Its hung calls end with the process.
    await waitUntil(() => program.kill("SIGKILL") === undefined).catch(() => {});
    await program.status;
  });
  const { dev } = await Deno.lstat(backing);
  await waitUntil(async () => (await Deno.lstat(path)).dev !== dev);
  const tell = (name: string, text: string): Promise<void> =>
    text === ""
      ? Deno.remove(join(control, name)).catch(() => {})
      : Deno.writeTextFile(join(control, name), text);
  const owned = stack.move();
  return {
    path,
    backing,
    hang: (...calls) => tell("hang", calls.join(" ")),
    async hung() {
      const text = await Deno.readTextFile(join(control, "hung")).catch(() => "");
      return text.split("\n").filter((line) => line !== "");
    },
    expired: () => Deno.stat(join(control, "expired")).then(() => true, () => false),
    fail: (errors) =>
      tell("errors", Object.entries(errors).map((line) => line.join(" ")).join("\n")),
    limit: (bytes, error) => tell("quota", `${bytes} ${error}`),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Reason why it cannot be mounted on this host; `undefined` if it can. */
export async function hangingObstacle(): Promise<string | undefined> {
  if (Deno.build.os !== "linux") return "this is not Linux";
  if (Deno.uid() !== 0) return "only root mounts file systems";
  const args = ["-c", "import fusepy; open('/dev/fuse').close()"];
  const python = new Deno.Command("/usr/bin/python3", { args, stdout: "null", stderr: "null" });
  const works = await python.output().then(({ success }) => success, () => false);
  return works ? undefined : "/dev/fuse or python3-fusepy is missing";
}
