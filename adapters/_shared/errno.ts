import { constants } from "node:os";

/** Names of this operating system's error numbers. */
const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno).map(([name, number]) => [number, name]),
);
/** How Deno ends the message of an error of the operating system. */
const NUMBER_IN_MESSAGE = /\(os error (\d+)\)/;
const CODE_IN_MESSAGE = /^(E[A-Z0-9]+): /;

/**
 * The code of the operating system in an error, like `ENOSPC`: Deno and Node put it into `code`,
 * and many that Deno has no class for (`EDQUOT`, `ENOLCK`, …) only into the message, as a number.
 */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  if ("code" in error && typeof error.code === "string") return error.code;
  const [, number] = NUMBER_IN_MESSAGE.exec(error.message) ?? [];
  if (number !== undefined) return NAMES.get(Number(number));
  return CODE_IN_MESSAGE.exec(error.message)?.[1];
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

/** A link lies in the place of a file, or something else that is none. */
export function notAFile(path: string): Error {
  return new Deno.errors.FilesystemLoop(`ELOOP: ${path} is no file`);
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
