/** Whether the journal is still written at the power failure, or nothing. */
export type LastWrites = "journal" | "nothing";

/** Shuts down ext4, xfs and f2fs: `_IOR('X', 125, __u32)`. */
const FS_IOC_SHUTDOWN = 0x8004587dn;
const FLAGS: Readonly<Record<LastWrites, number>> = { journal: 1, nothing: 2 };

const SYMBOLS = {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
} as const;

/**
 * Makes a mounted file system behave as after a power failure: nothing reaches the disk any more, and
 * data that had not reached it is lost when the file system is mounted again.
 *
 * @throws {Error} If the file system cannot be shut down, or permission is missing.
 */
export function cutPower(mountPoint: string, last: LastWrites): void {
  const libc = Deno.dlopen("libc.so.6", SYMBOLS);
  try {
    const { open, ioctl, close } = libc.symbols;
    const descriptor = open(new TextEncoder().encode(`${mountPoint}\0`), 0);
    if (descriptor < 0) throw new Error(`${mountPoint} cannot be opened`);
    const result = ioctl(descriptor, FS_IOC_SHUTDOWN, new Uint32Array([FLAGS[last]]));
    close(descriptor);
    if (result !== 0) throw new Error(`${mountPoint} cannot be shut down`);
  } finally {
    libc.close();
  }
}
