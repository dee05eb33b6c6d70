import { ownFile } from "./own_file.ts";

/** The program of a worker thread, in a file of this package. */
export class ThreadProgram {
  readonly #module: URL | undefined;

  /**
   * Takes the arguments of {@linkcode ownFile}: in a bundle there is no program, because the files
   * next to a bundle do not belong to this package.
   */
  constructor(moduleUrl: string, path: string, file: string) {
    this.#module = ownFile(moduleUrl, path, file);
  }

  /**
   * What a worker starts with; `undefined` in a bundle. Workers cannot load a remote module
   * directly, so one is imported.
   */
  get url(): URL | undefined {
    const module = this.#module;
    if (module === undefined || module.protocol === "file:") return module;
    return new URL(
      `data:text/javascript,import ${encodeURIComponent(JSON.stringify(module.href))}`,
    );
  }

  /** Why the program cannot run; `undefined` if it can. */
  async obstacle(): Promise<string | undefined> {
    const module = this.#module;
    if (module === undefined) return "a bundle has no program for worker threads";
    const descriptor: Deno.PermissionDescriptor = module.protocol === "file:"
      ? { name: "read", path: module }
      : { name: "import", host: module.host };
    const { state } = await Deno.permissions.query(descriptor);
    const what = module.protocol === "file:" ? "read" : "import";
    return state === "granted"
      ? undefined
      : `permission to ${what} the program of worker threads is missing`;
  }
}
