/** The code of the operating system in an error, like `ENOSPC`. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** There is no room, for a while or for this file. */
export function isFull(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT", "EFBIG"].includes(errnoOf(error) ?? "");
}

/** What stands in the place of an object is no file, or is gone. */
export function isNoObject(error: unknown): boolean {
  if (error instanceof Deno.errors.NotFound) return true;
  const codes = ["ENOENT", "ENOTDIR", "EISDIR", "ELOOP", "ENXIO", "ESPIPE", "EAGAIN", "ESTALE"];
  return codes.includes(errnoOf(error) ?? "");
}

/** The file system has no locks. */
export function isLockUnsupported(error: unknown): boolean {
  return ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP"].includes(errnoOf(error) ?? "");
}

/** The file system, or the permissions of the process, let nobody write here. */
export function isReadOnly(error: unknown): boolean {
  if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotCapable) {
    return true;
  }
  return ["EROFS", "EACCES", "EPERM"].includes(errnoOf(error) ?? "");
}
