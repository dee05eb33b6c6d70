/** A temporary directory, removed with its contents on disposal. */
export interface TempDirectory extends AsyncDisposable {
  /** Its path. */
  readonly path: string;
}

/** Creates a temporary directory. */
export async function tempDirectory(): Promise<TempDirectory> {
  const path = await Deno.makeTempDir({ prefix: "kvtier-test-" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
