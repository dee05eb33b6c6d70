import * as fc from "./fast_check.ts";
import { ObjectKey } from "../../src/keys/object_key.ts";

const ODD = [
  "/",
  "-SEP-",
  "@",
  "\\",
  "%40",
  "%",
  "..",
  ".",
  "%2F",
  " ",
  "é",
  "\u{1f600}",
  "h-",
  ".data",
  "a",
  "A",
];
const MODEL = fc.oneof(
  fc.string({ unit: "binary", minLength: 1, maxLength: 40 }),
  fc.array(fc.constantFrom(...ODD), { minLength: 1, maxLength: 60 }).map((parts) => parts.join("")),
);
const SALT = fc.oneof(
  fc.constant(""),
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.array(fc.constantFrom(...ODD), { maxLength: 30 }).map((parts) => parts.join("")),
);
const HASH = fc.oneof(
  fc.uint8Array({ minLength: 32, maxLength: 32 }),
  fc.constantFrom(0, 1, 255).map((byte) => new Uint8Array(32).fill(byte)),
);
const NUMBER = fc.oneof(fc.constantFrom(0, 1, 10, 2 ** 32 - 1), fc.nat(2 ** 32 - 1));

/** An arbitrary key, including odd and long names. */
export const anyObjectKey: fc.Arbitrary<ObjectKey> = fc
  .record({ chunkHash: HASH, model: MODEL, kvRank: NUMBER, objectGroup: NUMBER, cacheSalt: SALT })
  .map((fields) => {
    // Forbidden characters are removed.
    const model = fields.model.replaceAll(/[@\p{Cc}\p{Cs}]/gu, "");
    const cacheSalt = fields.cacheSalt.replaceAll(/[\p{Cc}\p{Cs}]/gu, "");
    const shorten = (text: string, most: number): string => {
      let end = text.length;
      while (new TextEncoder().encode(text.slice(0, end)).length > most) end--;
      return text.slice(0, end).toWellFormed().replaceAll("\ufffd", "");
    };
    return new ObjectKey({
      ...fields,
      model: shorten(model, 256) || "m",
      cacheSalt: [...cacheSalt].slice(0, 128).join(""),
    });
  });
