import { join } from "@std/path";

/** File systems that are created in an image on a loop device. */
export type LoopFileSystem = "ext4" | "xfs";

/** A file system for one test, unmounted and removed on disposal. */
export interface Mount extends AsyncDisposable {
  /** Its mount point. */
  readonly path: string;
  /** Unmounts and mounts it again, like a reboot. No file may be open. */
  remount(): Promise<void>;
}

/** Minimal sizes that can hold some megabytes of objects. */
const IMAGE_BYTES: Readonly<Record<LoopFileSystem, number>> = {
  ext4: 64 * 2 ** 20,
  xfs: 300 * 2 ** 20,
};

/**
 * Creates and mounts an empty file system in a file. Requires root.
 *
 * @throws {Error} If this host cannot; see {@linkcode mountObstacle}.
 */
export async function loopMount(type: LoopFileSystem): Promise<Mount> {
  await using stack = new AsyncDisposableStack();
  const path = await mountPoint(stack);
  const image = `${path}.image`;
  await Deno.writeFile(image, new Uint8Array(0), { mode: 0o600 });
  let device: string;
  try {
    await Deno.truncate(image, IMAGE_BYTES[type]);
    await run(`mkfs.${type}`, "-q", image);
    device = await run("losetup", "--find", "--show", image);
  } finally {
    // The loop device keeps the image open.
    await Deno.remove(image);
  }
  stack.defer(async () => void await run("losetup", "--detach", device));
  return await mounted(stack, path, ["-t", type, device]);
}

/**
 * Mounts an empty file system in memory. Requires root. Its files are lost when it is mounted
 * again.
 *
 * @throws {Error} If this host cannot; see {@linkcode mountObstacle}.
 */
export async function tmpfsMount(
  bytes = 64 * 2 ** 20,
  { files }: {
    /** Maximum number of files and directories. */
    readonly files?: number;
  } = {},
): Promise<Mount> {
  await using stack = new AsyncDisposableStack();
  const path = await mountPoint(stack);
  const limits = `size=${bytes}${files === undefined ? "" : `,nr_inodes=${files}`}`;
  return await mounted(stack, path, ["-t", "tmpfs", "-o", limits, "tmpfs"]);
}

/** Reason why a type of file system cannot be mounted on this host; `undefined` if it can. */
export async function mountObstacle(type: LoopFileSystem | "tmpfs"): Promise<string | undefined> {
  if (Deno.build.os !== "linux") return "this is not Linux";
  if (Deno.uid() !== 0) return "only root mounts file systems";
  try {
    await using _mount = await (type === "tmpfs" ? tmpfsMount() : loopMount(type));
    return undefined;
  } catch (error) {
    return `${type} cannot be mounted (${error instanceof Error ? error.message : error})`;
  }
}

async function mountPoint(stack: AsyncDisposableStack): Promise<string> {
  const parent = await Deno.makeTempDir({ prefix: "kvtier-mount-" });
  stack.defer(() => Deno.remove(parent, { recursive: true }));
  const path = join(parent, "mount");
  await Deno.mkdir(path);
  return path;
}

/** Mounts; the mount takes ownership of the stack. */
async function mounted(
  stack: AsyncDisposableStack,
  path: string,
  args: readonly string[],
): Promise<Mount> {
  const mount = async () => void await run("mount", ...args, path);
  const unmount = async () => void await run("umount", path);
  await mount();
  let isMounted = true;
  stack.defer(async () => {
    if (isMounted) await unmount();
  });
  const owned = stack.move();
  return {
    path,
    async remount() {
      await unmount();
      isMounted = false;
      await mount();
      isMounted = true;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Runs a command and returns its output. */
async function run(command: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args }).output();
  const [text, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes).trim());
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${errors}`);
  return text ?? "";
}
