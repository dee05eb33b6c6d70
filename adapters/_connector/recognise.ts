import type { Backend } from "./backend.ts";
import type { Connector } from "./connector.ts";
import { keyvBackend, type KeyvLike } from "./keyv_backend.ts";
import { plainBackend } from "./plain_backend.ts";
import { unstorageBackend, type UnstorageLike } from "./unstorage_backend.ts";

/** Kinds of connectors. */
export type ConnectorKind = "plain" | "unstorage" | "keyv";

/** A usable connector, or the methods that it lacks. */
export type Recognised =
  | { readonly kind: ConnectorKind; readonly backend: Backend }
  | { readonly kind: ConnectorKind; readonly missing: string };

/** Required methods of each kind; an inner list names alternatives. */
const METHODS: Readonly<Record<ConnectorKind, readonly (readonly string[])[]>> = {
  plain: [["get"], ["set"], ["exists", "has"]],
  unstorage: [["getItemRaw"], ["setItemRaw"], ["hasItem"]],
  keyv: [["get"], ["set"]],
};

/**
 * Detects the kind of a connector and adapts it.
 *
 * @param kind The configured kind; detected by its methods if left out.
 * @param onError Called with errors that a connector emits instead of throwing.
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
    // Keyv 4 has its namespace in its options.
    ("namespace" in object || "namespace" in Object(object.opts));
  return isKeyv ? "keyv" : "plain";
}

function hasMethod(object: unknown, name: string): boolean {
  return typeof object === "object" && object !== null &&
    typeof Reflect.get(object, name) === "function";
}
