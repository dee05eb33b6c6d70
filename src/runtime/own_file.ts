/**
 * The address of a file that lies beside a module of this package.
 *
 * @param moduleUrl The module's `import.meta.url`.
 * @param path Its path in the package, such as `src/runtime/zstd.ts`.
 * @param file The other file, relative to the module.
 * @returns `undefined` where a bundler put the module into another file: what lies beside that is not
 * this package's, and must neither be listed nor run.
 */
export function ownFile(moduleUrl: string, path: string, file: string): URL | undefined {
  return new URL(moduleUrl).pathname.endsWith(`/${path}`) ? new URL(file, moduleUrl) : undefined;
}
