import { constants } from "node:os";

/** Error names of this operating system by number. */
const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno).map(([name, number]) => [number, name]),
);
/** End of the message of Deno's operating system errors. */
const NUMBER_IN_MESSAGE = /\(os error (\d+)\)/;
const CODE_IN_MESSAGE = /^(E[A-Z0-9]+): /;

/**
 * The operating system's error code, such as `ENOSPC`. Deno and Node set it as `code`; for errors
 * without a class of their own (`EDQUOT`, `ENOLCK`, …), Deno only puts the number into the message.
 */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("code" in error && typeof error.code === "string") return error.code;
  const [, number] = NUMBER_IN_MESSAGE.exec(error.message) ?? [];
  if (number !== undefined) return NAMES.get(Number(number));
  return CODE_IN_MESSAGE.exec(error.message)?.[1];
}

/** Message of a thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Whether an error means that there is no space, in general or for this file. */
export function isFull(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT", "EFBIG"].includes(errnoOf(error) ?? "");
}

/** Whether an error means that the object's file is missing, or is not a regular file. */
export function isNoObject(error: unknown): boolean {
  if (error instanceof Deno.errors.NotFound) return true;
  const codes = ["ENOENT", "ENOTDIR", "EISDIR", "ELOOP", "ENXIO", "ESPIPE", "EAGAIN", "ESTALE"];
  return codes.includes(errnoOf(error) ?? "");
}

/** The error for a link or special file in place of a regular file. */
export function notAFile(path: string): Error {
  return new Deno.errors.FilesystemLoop(`ELOOP: ${path} is no file`);
}

/** Whether an error means that the file system does not support locks. */
export function isLockUnsupported(error: unknown): boolean {
  return ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "ENOTSUP"].includes(errnoOf(error) ?? "");
}

/** Whether an error means that the file system is read-only or write permission is missing. */
export function isReadOnly(error: unknown): boolean {
  if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotCapable) {
    return true;
  }
  return ["EROFS", "EACCES", "EPERM"].includes(errnoOf(error) ?? "");
}
