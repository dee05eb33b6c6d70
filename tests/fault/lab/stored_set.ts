import { Buffer } from "node:buffer";
import type { ObjectLayout } from "../../../src/keys/kv_layout.ts";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import { concatParts } from "../../../src/adapter/contract.ts";
import type { GuardedObject } from "../../../src/l2/adapter_guard.ts";
import { fileOf } from "../../support/fs_adapter.ts";
import { testKeys, testLayout } from "../../support/objects.ts";
import { sealedObject } from "../../support/sealed_objects.ts";

/** Number of parts of a payload: each is a separate write, at which the process can be killed. */
const PIECES = 4;

/** Result of a check of a set, with objects by number. */
export interface Found {
  /** Objects with the right bytes. */
  readonly whole: readonly number[];
  /** Objects with other bytes. */
  readonly torn: readonly number[];
}

/** Objects, identified by number, that one program stores and another one checks. */
export class StoredSet {
  /** The keys. */
  readonly keys: readonly ObjectKey[];
  /** The common layout. */
  readonly layout: ObjectLayout;
  /** The objects with their trailers. */
  readonly objects: readonly GuardedObject[];
  readonly #bytes: readonly Uint8Array[];

  /** Creates the objects of `count` keys. */
  constructor(count: number, payloadBytes: number) {
    this.keys = testKeys(count);
    this.layout = testLayout(payloadBytes);
    const pieceBytes = payloadBytes / PIECES;
    this.objects = this.keys.map((key) => {
      const { parts: [payload = new Uint8Array(), ...tail], ...object } = sealedObject(
        key,
        this.layout,
      );
      const pieces = Array.from(
        { length: PIECES },
        (_, i) => payload.subarray(i * pieceBytes, (i + 1) * pieceBytes),
      );
      return { ...object, parts: [...pieces, ...tail] };
    });
    this.#bytes = this.objects.map(({ parts }) => concatParts(parts));
  }

  /** Compares the files of the objects with the expected bytes, like a plain reader. */
  async inspect(basePath: string): Promise<Found> {
    const found = { whole: [] as number[], torn: [] as number[] };
    for (const [n, key] of this.keys.entries()) {
      const bytes = await Deno.readFile(fileOf(basePath, key)).catch((error: unknown) => {
        if (error instanceof Deno.errors.NotFound) return undefined;
        throw error;
      });
      if (bytes === undefined) continue;
      const isWhole = Buffer.compare(bytes, this.#bytes[n] ?? new Uint8Array()) === 0;
      (isWhole ? found.whole : found.torn).push(n);
    }
    return found;
  }

  /** Whether bytes are the payload of an object. */
  isPayload(n: number, bytes: Uint8Array): boolean {
    const payload = this.#bytes[n]?.subarray(0, this.layout.byteLength);
    return payload !== undefined && Buffer.compare(bytes, payload) === 0;
  }
}
