import { dirname, SEPARATOR } from "@std/path";

/** File systems on a disk or in the memory of this host, where closing a file never blocks. */
const LOCAL = new Set(
  "ext2 ext3 ext4 xfs btrfs zfs f2fs bcachefs jfs vfat exfat ntfs3 tmpfs ramfs overlay".split(" "),
);

const MOUNTS = "/proc/self/mountinfo";

/**
 * Whether a directory is on a local file system, where closing a file returns at once. Network file
 * systems and FUSE ask a server, which may hang.
 *
 * Reads `/proc/self/mountinfo` if `--allow-all` is granted. Otherwise only file systems with a
 * block device count as local.
 */
export async function isLocalDisk(path: string): Promise<boolean> {
  // Other systems offer no such list, and rarely have such mounts.
  if (Deno.build.os !== "linux") return true;
  const { state } = await Deno.permissions.query({ name: "read", path: MOUNTS });
  const mounts = state === "granted"
    ? await Deno.readTextFile(MOUNTS).catch(() => undefined)
    : undefined;
  if (mounts !== undefined) return LOCAL.has(typeOf(path, mounts) ?? "");
  const info = await existing(path);
  // Network file systems and FUSE have no block device: the major number is 0.
  return info !== undefined && (info.dev >>> 8 & 0xfff) !== 0;
}

/** Information about a path, or about its nearest existing ancestor. */
async function existing(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.lstat(path);
  } catch (error) {
    const isMissing = error instanceof Deno.errors.NotFound && dirname(path) !== path;
    return isMissing ? await existing(dirname(path)) : undefined;
  }
}

/** Type of the file system mounted at a path or its nearest ancestor; the last mount wins. */
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
