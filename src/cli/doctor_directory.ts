import * as nodeFs from "node:fs";
import { open, statfs } from "node:fs/promises";
import { join } from "@std/path";
import type { L2Config } from "../l2/adapter_config.ts";
import type { Findings } from "./findings.ts";
import { bytesInWords } from "./quantities.ts";

/** Free space and inodes below which stores will soon fail. */
const FEW_BYTES = 256 * 2 ** 20;
const FEW_INODES = 1_000;

/** File systems by the number that identifies them. */
const FILE_SYSTEMS: ReadonlyMap<number, string> = new Map([
  [0xef53, "ext4"],
  [0x58465342, "xfs"],
  [0x9123683e, "btrfs"],
  [0x2fc12fc1, "zfs"],
  [0xf2f52010, "f2fs"],
  [0x01021994, "tmpfs"],
  [0x794c7630, "overlay"],
  [0x6969, "nfs"],
  [0xff534d42, "cifs"],
  [0xfe534d42, "smb2"],
  [0x65735546, "fuse"],
  [0x4d44, "vfat"],
]);
const REMOTE = ["nfs", "cifs", "smb2", "fuse"];

/**
 * Checks a directory of objects: owner, mode, file system, space, direct I/O.
 *
 * @returns Whether it exists.
 */
export async function checkDirectory(
  findings: Findings,
  path: string,
  config: L2Config,
): Promise<boolean> {
  const subject = `directory ${path}`;
  const info = await Deno.stat(path).catch((error: unknown) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  if (info === undefined) {
    const text = "does not exist: a cache creates it. Is the path right? Nothing would be hit";
    findings.add(subject, "note", text);
    return false;
  }
  if (!info.isDirectory) {
    findings.add(subject, "wrong", "is no directory: name another path, or move the file away");
    return false;
  }
  checkOwner(findings, subject, info, config);
  await checkSpace(findings, subject, path);
  const refusal = await directRefusal(path);
  const text = refusal === undefined
    ? "works: use_odirect keeps large stores out of the page cache"
    : `not here (${refusal}): use_odirect has no effect`;
  findings.add(`${subject}: O_DIRECT`, refusal === undefined ? "ok" : "note", text);
  return true;
}

function checkOwner(
  findings: Findings,
  subject: string,
  { uid, mode }: Deno.FileInfo,
  config: L2Config,
): void {
  if (uid === null || mode === null) return;
  const own = Deno.uid();
  const isAllowed = config.allow_foreign_owner === true || config.allow_shared_group === true;
  const isForeign = own !== null && own !== 0 && uid !== own && !isAllowed;
  const isOpen = (mode & 0o022) !== 0 && config.allow_shared_group !== true;
  const shown = `user ${uid}, mode ${(mode & 0o7777).toString(8).padStart(4, "0")}`;
  if (isForeign) {
    const text = `${shown}, but this is user ${own}: chown it, or set allow_foreign_owner`;
    return findings.add(`${subject}: owner`, "wrong", text);
  }
  const open = `${shown}: others can replace objects: chmod go-w it, or set allow_shared_group`;
  findings.add(`${subject}: owner`, isOpen ? "wrong" : "ok", isOpen ? open : shown);
}

async function checkSpace(findings: Findings, subject: string, path: string): Promise<void> {
  const { type, bsize, blocks, bavail, files, ffree } = await statfs(path);
  const name = FILE_SYSTEMS.get(type) ?? `type 0x${type.toString(16)}`;
  const kind = REMOTE.includes(name)
    ? ["slow", "a server or a program answers each call, and may hang"] as const
    : name === "tmpfs"
    ? ["note", "in memory: objects end with the host, and take its memory"] as const
    : ["ok", "local"] as const;
  findings.add(`${subject}: file system`, kind[0], `${name}, ${kind[1]}`);
  const free = bavail * bsize;
  const isFull = free < FEW_BYTES;
  const space = `${bytesInWords(free)} of ${bytesInWords(blocks * bsize)} free`;
  findings.add(
    `${subject}: space`,
    isFull ? "wrong" : "ok",
    isFull ? `${space}: stores fail soon; make room, or lower max_capacity_gb` : space,
  );
  // Some file systems have no fixed number of inodes.
  if (files === 0) return;
  const isOut = ffree < FEW_INODES;
  const inodes = `${ffree} of ${files} free`;
  findings.add(
    `${subject}: inodes`,
    isOut ? "wrong" : "ok",
    isOut ? `${inodes}: new files fail soon; remove files, or use file_pool` : inodes,
  );
}

/** Why direct I/O does not work in a directory; `undefined` if it does. */
async function directRefusal(path: string): Promise<string | undefined> {
  const { O_CREAT, O_RDWR, O_EXCL, ...others } = nodeFs.constants;
  const { O_DIRECT } = others as { O_DIRECT?: number };
  if (O_DIRECT === undefined) return "this operating system has none";
  const name = join(path, `kvtier-doctor-${crypto.randomUUID()}.tmp`);
  try {
    const file = await open(name, O_CREAT | O_RDWR | O_EXCL | O_DIRECT, 0o600);
    await file.close();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  } finally {
    await Deno.remove(name).catch(() => {});
  }
}
