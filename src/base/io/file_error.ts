/** A failure of a file operation, as a message can carry it. */
export interface SentError {
  readonly name: string;
  readonly message: string;
  readonly code: string | undefined;
}

/** Makes an error ready for sending. */
export function sentError(error: unknown): SentError {
  if (!(error instanceof Error)) return { name: "Error", message: String(error), code: undefined };
  const { name, message } = error;
  return { name, message, code: "code" in error ? String(error.code) : undefined };
}

/** The class that the host has for an error code, where code asks for the class. */
const CLASSES: Readonly<Record<string, new (message: string) => Error>> = {
  ENOENT: Deno.errors.NotFound,
  EEXIST: Deno.errors.AlreadyExists,
  EACCES: Deno.errors.PermissionDenied,
};

/** The error that was sent, as the host itself would have thrown it here. */
export function receivedError({ name, message, code }: SentError): Error {
  const classes: Readonly<Record<string, new (message: string) => Error>> = { ...Deno.errors };
  const make = classes[name] ?? CLASSES[code ?? ""] ?? Error;
  const error = new make(message);
  return code === undefined ? error : Object.assign(error, { code });
}
