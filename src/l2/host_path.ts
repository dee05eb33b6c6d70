/**
 * Checks a path that a configuration names. Nothing in it is expanded, so that what a shell would
 * expand is a mistake: it would make a directory of that name.
 *
 * @param path The path, absolute or relative to the working directory.
 * @returns What to write instead; `undefined` if the path can be used.
 */
export function unmetPath(path: string): string | undefined {
  if (path.trim() === "") return "a path that is not empty";
  if (path.includes("\0")) return "a path without NUL";
  if (/^~/.test(path)) {
    return "a path with the home directory written out (or ./~ for a name that begins with ~)";
  }
  // A name that only begins with a dollar is a variable of a shell, too.
  if (/\$\{|\$\(|(?:^|[/\\])\$[A-Za-z_]|%[A-Za-z_]+%/.test(path)) {
    return "a path with the values of variables written out, which are not expanded";
  }
  if (/^(?:file:|[a-z][a-z0-9+.-]*:\/\/)/i.test(path)) {
    return "a path, such as /data/kv, instead of a URL";
  }
  return undefined;
}
