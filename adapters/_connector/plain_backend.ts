import type { Backend } from "./backend.ts";
import type { Connector } from "./connector.ts";

/** Adapts an object that implements {@linkcode Connector}. */
export function plainBackend(connector: Connector): Backend {
  const many = connector.existsMany === undefined ? "hasMany" : "existsMany";
  const each = connector.exists === undefined ? "has" : "exists";
  return {
    get: (name, signal) => connector.get(name, { signal }),
    set: (name, value, signal) => connector.set(name, value, { signal }),
    has: (name, signal) => connector[each]?.(name, { signal }),
    ...(connector.delete && { delete: (name, signal) => connector.delete?.(name, { signal }) }),
    ...(connector.sizeOf && { sizeOf: (name, signal) => connector.sizeOf?.(name, { signal }) }),
    ...((connector.list ?? connector.keys) && {
      async *list(prefix, signal) {
        const names = await (connector.list?.({ prefix, signal }) ?? connector.keys?.());
        for await (const name of names ?? []) yield name;
      },
    }),
    ...(connector.getMany && {
      getMany: (names, signal) => connector.getMany?.(names, { signal }),
    }),
    ...(connector.setMany && {
      setMany: (entries, signal) => connector.setMany?.(entries, { signal }),
    }),
    ...(connector[many] && { hasMany: (names, signal) => connector[many]?.(names, { signal }) }),
    ...(connector.close && { close: () => connector.close?.() }),
  };
}
