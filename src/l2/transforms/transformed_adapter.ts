import type { AdapterCapabilities, L2Adapter } from "../../adapter/contract.ts";
import { TransformedObjects, type TransformOptions } from "./transformed_objects.ts";

/**
 * Wraps an adapter so that it stores transformed objects. All sizes concern the transformed
 * objects: bytes stored and deleted, sizes in a listing, usage.
 */
export function transformAdapter(adapter: L2Adapter, options: TransformOptions): L2Adapter {
  const { chain, names } = options;
  const objects = new TransformedObjects(adapter, options);
  return {
    get capabilities(): AdapterCapabilities {
      return objects.capabilities;
    },
    store: (batch, options) => objects.store(batch, options),
    lookupAndLock: (keys, options) => adapter.lookupAndLock(keys, options),
    load: (batch, options) => objects.load(batch, options),
    ...(adapter.unlock && { unlock: (keys) => adapter.unlock?.(keys) }),
    ...(adapter.touch && { touch: (keys) => adapter.touch?.(keys) }),
    ...(adapter.delete && {
      delete: (keys, options) => (adapter as Required<L2Adapter>).delete(keys, options),
    }),
    ...(adapter.list && { list: (options) => objects.list(options) }),
    ...(adapter.usage && {
      usage: (options) => (adapter as Required<L2Adapter>).usage(options),
    }),
    reportStatus: () => ({
      ...adapter.reportStatus?.(),
      serde: { transforms: names, ...objects.reportStatus() },
    }),
    async [Symbol.asyncDispose]() {
      try {
        await adapter[Symbol.asyncDispose]();
      } finally {
        chain[Symbol.dispose]();
        objects.close();
      }
    },
  };
}
