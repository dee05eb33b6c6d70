import { createHash } from "node:crypto";
import type { ObjectKey } from "../../src/adapter/contract.ts";
import type { S3ObjectNames } from "./object_names.ts";
import type { S3Client } from "./s3_client.ts";
import { codeIn, S3Error } from "./s3_error.ts";
import { elementsIn, escapeXml, tagIn } from "./xml.ts";

/** Max objects per removal request. */
export const REMOVAL_BATCH = 1_000;
/** HTTP statuses of servers that do not support removing several objects at once. */
const UNSUPPORTED = [400, 404, 405, 411, 501];
const encoder = new TextEncoder();

/** Removes objects, many per request if the server supports it. */
export class ObjectRemover {
  readonly #client: S3Client;
  readonly #names: S3ObjectNames;
  #isBatched = true;

  constructor({ client, names }: { readonly client: S3Client; readonly names: S3ObjectNames }) {
    this.#client = client;
    this.#names = names;
  }

  /** Whether removals are batched: true until the server refuses it. */
  get isBatched(): boolean {
    return this.#isBatched;
  }

  /**
   * Removes objects, and calls `onFailure` for each that could not be removed. A missing object
   * counts as removed.
   *
   * @returns Key ids of the removed objects.
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
        // An error that names no object of the batch may concern any of them.
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

  /** Resolves to the names that could not be removed, with the error codes. */
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
      // A truncated answer may omit failures.
      throw new S3Error(200, codeIn(text) ?? "IncompleteBody", "POST");
    }
    return new Map(
      elementsIn(text, "Error").map((element) =>
        [tagIn(element, "Key") ?? "", tagIn(element, "Code") ?? "UnknownError"] as const
      ),
    );
  }
}
