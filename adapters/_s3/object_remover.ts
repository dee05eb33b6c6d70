import { createHash } from "node:crypto";
import type { ObjectKey } from "../../src/l2/adapter.ts";
import type { ObjectNames } from "./object_names.ts";
import type { S3Client } from "./s3_client.ts";
import { codeIn, S3Error } from "./s3_error.ts";
import { elementsIn, escapeXml, tagIn } from "./xml.ts";

/** Objects that one request can remove. */
export const REMOVAL_BATCH = 1_000;
/** How servers say that they cannot remove several objects at once. */
const UNSUPPORTED = [400, 404, 405, 411, 501];
const encoder = new TextEncoder();

/** Removes objects, many with one request where the server takes that. */
export class ObjectRemover {
  readonly #client: S3Client;
  readonly #names: ObjectNames;
  #isBatched = true;

  /** Removes nothing yet. */
  constructor({ client, names }: { readonly client: S3Client; readonly names: ObjectNames }) {
    this.#client = client;
    this.#names = names;
  }

  /** Whether the server has not refused to remove several objects at once. */
  get isBatched(): boolean {
    return this.#isBatched;
  }

  /**
   * Removes objects; each that could not be removed is given to `onFailure`. One that is not there
   * counts as removed.
   *
   * @returns Ids of the keys whose objects are gone.
   */
  async remove(
    keys: readonly ObjectKey[],
    signal: AbortSignal,
    onFailure: (key: ObjectKey, cause: unknown) => void,
  ): Promise<Set<string>> {
    const named = new Map(keys.map((key) => [this.#names.nameOf(key), key]));
    const names = [...named.keys()];
    const batches: string[][] = [];
    for (let i = 0; i < names.length; i += REMOVAL_BATCH) {
      batches.push(names.slice(i, i + REMOVAL_BATCH));
    }
    const fail = (name: string, cause: unknown): void => {
      const key = named.get(name);
      if (key === undefined) return;
      named.delete(name);
      onFailure(key, cause);
    };
    await Promise.all(batches.map((batch) => this.#removeBatch(batch, signal, fail)));
    return new Set([...named.values()].map(({ id }) => id));
  }

  async #removeBatch(
    names: readonly string[],
    signal: AbortSignal,
    onFailure: (name: string, cause: unknown) => void,
  ): Promise<void> {
    if (names.length > 1 && this.#isBatched) {
      try {
        const failures = await this.#removeTogether(names, signal);
        // An error that names none of the objects may be about any.
        const isAny = [...failures.keys()].some((name) => !names.includes(name));
        const [anyCode = "UnknownError"] = failures.values();
        for (const name of isAny ? names : failures.keys()) {
          onFailure(name, new S3Error(200, failures.get(name) ?? anyCode, "POST"));
        }
        return;
      } catch (error) {
        const isRefused = error instanceof S3Error && UNSUPPORTED.includes(error.status) &&
          error.code !== "NoSuchBucket";
        if (!isRefused) return names.forEach((name) => onFailure(name, error));
        this.#isBatched = false;
      }
    }
    await Promise.all(names.map(async (name) => {
      try {
        const request = { method: "DELETE", name, answers: [404] } as const;
        await this.#client.request(request, signal, () => {});
      } catch (error) {
        onFailure(name, error);
      }
    }));
  }

  /** Resolves to the names that could not be removed, with the reasons. */
  async #removeTogether(
    names: readonly string[],
    signal: AbortSignal,
  ): Promise<Map<string, string>> {
    const objects = names.map((name) => `<Object><Key>${escapeXml(name)}</Key></Object>`);
    const document = encoder.encode(`<Delete><Quiet>true</Quiet>${objects.join("")}</Delete>`);
    const headers = { "content-md5": createHash("md5").update(document).digest("base64") };
    const request = {
      method: "POST",
      query: { delete: "" },
      headers,
      body: () => document,
    } as const;
    const text = await this.#client.request(request, signal, (response) => response.text());
    if (!/<\/DeleteResult>|<DeleteResult\b[^>]*\/>/.test(text)) {
      // What breaks off may leave out what was not removed.
      throw new S3Error(200, codeIn(text) ?? "IncompleteBody", "POST");
    }
    return new Map(
      elementsIn(text, "Error").map((element) =>
        [tagIn(element, "Key") ?? "", tagIn(element, "Code") ?? "UnknownError"] as const
      ),
    );
  }
}
