import type { AdapterObject } from "../../src/adapter/contract.ts";
import type { ReadOutcome } from "../_remote/remote_store.ts";
import { forEachPart, type ValuePart } from "../_remote/split_values.ts";
import { BodyReader } from "./body_reader.ts";
import type { S3ObjectNames } from "./object_names.ts";
import type { S3Client } from "./s3_client.ts";
import { absentOrFail } from "./s3_error.ts";

/** Result of reading a range; `whole` if the server ignored the range. */
type RangeOutcome = { readonly etag: string } | "absent" | "layout" | "whole";

/** Options of an {@linkcode S3ObjectReader}. */
export interface S3ObjectReaderOptions {
  readonly client: S3Client;
  readonly names: S3ObjectNames;
  /** Bytes of a range. */
  readonly partBytes: number;
  /** Objects with more bytes are read in ranges. */
  readonly rangesAboveBytes: number;
}

/** Loads objects into their parts; large ones in several ranges at once. */
export class S3ObjectReader {
  readonly #options: S3ObjectReaderOptions;
  readonly #bodies = new BodyReader();

  constructor(options: S3ObjectReaderOptions) {
    this.#options = options;
  }

  /**
   * Loads one object. After it settles, nothing is written into the parts.
   *
   * @throws {S3Error} If the server refuses.
   * @throws If the server does not answer, or `signal` aborts.
   */
  async read(
    object: AdapterObject,
    allowShorter: boolean,
    signal: AbortSignal,
  ): Promise<ReadOutcome> {
    const name = this.#options.names.nameOf(object.key);
    const { parts } = object;
    const byteLength = allowShorter
      ? await this.#options.client.sizeOf(name, signal)
      : object.byteLength;
    if (byteLength === undefined) return "absent";
    if (byteLength > object.byteLength) return "layout";
    if (byteLength > this.#options.rangesAboveBytes) {
      const outcome = await this.#readRanges(name, parts, byteLength, signal);
      if (outcome !== "whole") return outcome;
    }
    return await this.#readWhole(name, parts, byteLength, signal);
  }

  async #readWhole(
    name: string,
    parts: AdapterObject["parts"],
    byteLength: number,
    signal: AbortSignal,
  ): Promise<ReadOutcome> {
    const request = { method: "GET", name, answers: [404] } as const;
    return await this.#options.client.request(request, signal, async (response) => {
      if (response.status === 404) return absentOrFail(response);
      const length = response.headers.get("content-length");
      if (length !== null && Number(length) !== byteLength) return "layout";
      return await this.#bodies.copy(response.body, parts, 0, byteLength) ? "filled" : "layout";
    });
  }

  /**
   * Reads all ranges; `whole` if they are not of one version, so that the object must be read
   * again.
   */
  async #readRanges(
    name: string,
    parts: AdapterObject["parts"],
    byteLength: number,
    signal: AbortSignal,
  ): Promise<ReadOutcome | "whole"> {
    const { partBytes } = this.#options;
    const split = { byteLength, partBytes, count: Math.ceil(byteLength / partBytes) };
    const outcomes: RangeOutcome[] = [];
    await forEachPart(split, Infinity, signal, async (part, stop) => {
      outcomes[part.index] = await this.#readRange(name, parts, part, byteLength, stop);
    });
    const etags = new Set<string>();
    for (const outcome of outcomes) {
      if (typeof outcome === "string") return outcome;
      etags.add(outcome.etag);
    }
    return etags.size === 1 && !etags.has("") ? "filled" : "whole";
  }

  async #readRange(
    name: string,
    parts: AdapterObject["parts"],
    { start, end }: ValuePart,
    byteLength: number,
    signal: AbortSignal,
  ): Promise<RangeOutcome> {
    const range = `${start}-${end - 1}`;
    const request = { method: "GET", name, range, answers: [404, 416] } as const;
    return await this.#options.client.request(request, signal, async (response) => {
      if (response.status === 404) return absentOrFail(response);
      if (response.status === 416) return "layout";
      if (response.status !== 206) return "whole";
      const given = response.headers.get("content-range");
      if (given !== `bytes ${range}/${byteLength}`) return "layout";
      const isFilled = await this.#bodies.copy(response.body, parts, start, end);
      return isFilled ? { etag: response.headers.get("etag") ?? "" } : "layout";
    });
  }
}
