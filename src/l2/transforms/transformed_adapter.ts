import type { L2Adapter } from "../../adapter/contract.ts";
import { wrapAdapter } from "../../adapter/wrap_adapter.ts";
import { TransformedObjects, type TransformOptions } from "./transformed_objects.ts";

/**
 * Wraps an adapter so that it stores transformed objects. All sizes concern the transformed
 * objects: bytes stored and deleted, sizes in a listing, usage.
 */
export function transformAdapter(adapter: L2Adapter, options: TransformOptions): L2Adapter {
  const { chain } = options;
  const objects = new TransformedObjects(adapter, options);
  return wrapAdapter(adapter, {
    get capabilities() {
      return objects.capabilities;
    },
    store: (batch, options) => objects.store(batch, options),
    load: (batch, options) => objects.load(batch, options),
    list: (options) => objects.list(options),
    reportStatus: () => ({
      ...adapter.reportStatus?.(),
      serde: { transforms: chain.names, ...objects.reportStatus() },
    }),
    async [Symbol.asyncDispose]() {
      try {
        await adapter[Symbol.asyncDispose]();
      } finally {
        chain[Symbol.dispose]();
        objects.close();
      }
    },
  });
}
