import { createHash } from "node:crypto";

/** A server of one model with the API of Hugging Face. */
export class Hub implements AsyncDisposable {
  /** Id of the model. */
  readonly id = "owner/tiny";
  /** Paths of the requests, with their ranges. */
  readonly requests: string[] = [];
  /** The files by path. */
  readonly files: Map<string, Uint8Array<ArrayBuffer>>;
  /** Bytes after which an answer breaks off. */
  breaksAfter = Infinity;
  /** What to say of a file instead of the truth. */
  lies: Readonly<Record<string, object>> = {};
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  /** Serves files, by paths in the repository. */
  constructor(files: Readonly<Record<string, string | Uint8Array<ArrayBuffer>>>) {
    const bytes = Object.entries(files).map(([path, file]) =>
      [path, typeof file === "string" ? new TextEncoder().encode(file) : file] as const
    );
    this.files = new Map(bytes);
    const quiet = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
    this.#server = Deno.serve(quiet, (request) => this.#answer(request));
  }

  /** The value for `HF_ENDPOINT`. */
  get endpoint(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  #answer(request: Request): Response {
    const { pathname } = new URL(request.url);
    const range = request.headers.get("range");
    this.requests.push(range === null ? pathname : `${pathname} ${range}`);
    if (pathname === `/api/models/${this.id}/tree/main`) return Response.json(this.#list());
    const bytes = this.files.get(pathname.replace(`/${this.id}/resolve/main/`, ""));
    if (bytes === undefined) return new Response(null, { status: 404 });
    const start = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
    if (range !== null && start >= bytes.byteLength) return new Response(null, { status: 416 });
    const end = Math.min(bytes.byteLength, start + this.breaksAfter);
    return new Response(bytes.slice(start, end), { status: range === null ? 200 : 206 });
  }

  #list(): object[] {
    return [...this.files].map(([path, bytes]) => {
      const size = bytes.byteLength;
      const blob = createHash("sha1").update(`blob ${size}\0`).update(bytes).digest("hex");
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      const large = path.startsWith("onnx/") ? { lfs: { oid: sha256, size } } : {};
      return { type: "file", path, size, oid: blob, ...large, ...this.lies[path] };
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#server.shutdown();
  }
}
