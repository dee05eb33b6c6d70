import { dirname, SEPARATOR } from "@std/path";

/** File systems on a disk, or in the memory, of this host: closing a file there waits for nothing. */
const LOCAL = new Set(
  "ext2 ext3 ext4 xfs btrfs zfs f2fs bcachefs jfs vfat exfat ntfs3 tmpfs ramfs overlay".split(" "),
);

const MOUNTS = "/proc/self/mountinfo";

/**
 * Whether a directory is on a disk of this host, where closing a file returns at once. Network file
 * systems and FUSE ask a server, which may hang.
 *
 * Reads `/proc/self/mountinfo` where `--allow-all` is granted. Where it is not, only file systems on
 * a device of their own count as local.
 */
export async function isLocalDisk(path: string): Promise<boolean> {
  // Elsewhere nothing tells, and such mounts are rare.
  if (Deno.build.os !== "linux") return true;
  const { state } = await Deno.permissions.query({ name: "read", path: MOUNTS });
  const mounts = state === "granted"
    ? await Deno.readTextFile(MOUNTS).catch(() => undefined)
    : undefined;
  if (mounts !== undefined) return LOCAL.has(typeOf(path, mounts) ?? "");
  const info = await existing(path);
  // Network file systems and FUSE have no device: their number has no major part.
  return info !== undefined && (info.dev >>> 8 & 0xfff) !== 0;
}

/** What is at a path, or at the next one above it where there is something. */
async function existing(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.lstat(path);
  } catch (error) {
    const isMissing = error instanceof Deno.errors.NotFound && dirname(path) !== path;
    return isMissing ? await existing(dirname(path)) : undefined;
  }
}

/** The type of the file system that is mounted at a path or above it, the last one if many are. */
function typeOf(path: string, mounts: string): string | undefined {
  let deepest = "";
  let type: string | undefined;
  for (const line of mounts.split("\n")) {
    const [fields = "", source = ""] = line.split(" - ");
    const place = fields.split(" ")[4]?.replaceAll(
      /\\(\d{3})/g,
      (_, octal) => String.fromCharCode(parseInt(octal, 8)),
    );
    if (place === undefined || place.length < deepest.length) continue;
    const isAbove = path === place || path.startsWith(place === "/" ? place : place + SEPARATOR);
    if (!isAbove) continue;
    deepest = place;
    type = source.split(" ")[0];
  }
  return type;
}
