/**
 * Checks a path from a configuration. Nothing in it is expanded, so anything that a shell would
 * expand is a mistake: it would create a directory of that name.
 *
 * @param path Path, absolute or relative to the working directory.
 * @returns What is expected instead; `undefined` if the path is valid.
 */
export function unmetPath(path: string): string | undefined {
  if (path.trim() === "") return "a path that is not empty";
  if (path.includes("\0")) return "a path without NUL";
  if (/^~/.test(path)) {
    return "a path with the home directory written out (or ./~ for a name that begins with ~)";
  }
  // A leading dollar also marks a shell variable.
  if (/\$\{|\$\(|(?:^|[/\\])\$[A-Za-z_]|%[A-Za-z_]+%/.test(path)) {
    return "a path with the values of variables written out, which are not expanded";
  }
  if (/^(?:file:|[a-z][a-z0-9+.-]*:\/\/)/i.test(path)) {
    return "a path, such as /data/kv, instead of a URL";
  }
  return undefined;
}
