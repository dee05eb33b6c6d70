/**
 * The URL of a file next to a module of this package.
 *
 * @param moduleUrl The module's `import.meta.url`.
 * @param path Path of the module in the package, such as `src/base/zstd.ts`.
 * @param file The other file, relative to the module.
 * @returns `undefined` if a bundler moved the module into another file: the files next to a bundle
 * do not belong to this package and must be neither listed nor run.
 */
export function ownFile(moduleUrl: string, path: string, file: string): URL | undefined {
  return new URL(moduleUrl).pathname.endsWith(`/${path}`) ? new URL(file, moduleUrl) : undefined;
}
