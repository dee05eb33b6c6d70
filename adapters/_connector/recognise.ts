import type { Backend } from "./backend.ts";
import type { Connector } from "./connector.ts";
import { keyvBackend, type KeyvLike } from "./keyv_backend.ts";
import { plainBackend } from "./plain_backend.ts";
import { unstorageBackend, type UnstorageLike } from "./unstorage_backend.ts";

/** Kinds of connectors. */
export type ConnectorKind = "plain" | "unstorage" | "keyv";

/** A connector that can be used, or what it lacks. */
export type Recognised =
  | { readonly kind: ConnectorKind; readonly backend: Backend }
  | { readonly kind: ConnectorKind; readonly missing: string };

/** Methods of each kind; one of those in an inner list. */
const METHODS: Readonly<Record<ConnectorKind, readonly (readonly string[])[]>> = {
  plain: [["get"], ["set"], ["exists", "has"]],
  unstorage: [["getItemRaw"], ["setItemRaw"], ["hasItem"]],
  keyv: [["get"], ["set"]],
};

/**
 * Finds out which kind of connector an object is, and makes a {@linkcode Backend} of it.
 *
 * @param kind The kind that it is said to be; left out, its methods tell.
 * @param onError Told what a connector says that does not throw it.
 */
export function recognise(
  object: unknown,
  kind: ConnectorKind | undefined,
  onError: (cause: unknown) => void,
): Recognised {
  const known = kind ?? guess(object);
  const missing = METHODS[known].filter((names) => !names.some((name) => hasMethod(object, name)));
  if (missing.length > 0) {
    const text = missing.map((names) => names.join(" or ")).join(", ");
    const hint = known === "unstorage" && hasMethod(object, "getItem")
      ? ": wrap the driver with createStorage({ driver }), which has them"
      : "";
    return { kind: known, missing: text + hint };
  }
  switch (known) {
    case "plain":
      return { kind: known, backend: plainBackend(object as Connector) };
    case "unstorage":
      return { kind: known, backend: unstorageBackend(object as UnstorageLike) };
    case "keyv":
      return { kind: known, backend: keyvBackend(object as KeyvLike, onError) };
  }
}

function guess(object: unknown): ConnectorKind {
  if (hasMethod(object, "getItemRaw") || hasMethod(object, "getItem")) return "unstorage";
  const isKeyv = hasMethod(object, "get") && hasMethod(object, "set") &&
    typeof object === "object" && object !== null && "opts" in object &&
    // Keyv 4 keeps its namespace among its options.
    ("namespace" in object || "namespace" in Object(object.opts));
  return isKeyv ? "keyv" : "plain";
}

function hasMethod(object: unknown, name: string): boolean {
  return typeof object === "object" && object !== null &&
    typeof Reflect.get(object, name) === "function";
}
