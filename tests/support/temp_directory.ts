/** A new directory that is removed when it is disposed, with all that is in it. */
export interface TempDirectory extends AsyncDisposable {
  /** Where it is. */
  readonly path: string;
}

/** Makes a directory for one test. */
export async function tempDirectory(): Promise<TempDirectory> {
  const path = await Deno.makeTempDir({ prefix: "kvtier-test-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
