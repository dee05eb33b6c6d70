/**
 * The `fault_inject` adapter: wraps another adapter and makes some loads fail, for fault drills.
 *
 * @module
 */
import { getLogger } from "@logtape/logtape";
import {
  Bitmap,
  type ConfigValues,
  defineL2Adapter,
  type L2Adapter,
  type L2AdapterModule,
} from "../src/adapter/contract.ts";
import { type FailConfig, failFor } from "../src/base/config_error.ts";
import { wrapAdapter } from "../src/adapter/wrap_adapter.ts";
import { drops } from "./_fault_inject/drops.ts";

const fail: FailConfig = failFor("fault_inject adapter");

const config = {
  inner: {
    type: "record",
    required: true,
    help: "Configuration of the wrapped adapter, including its type.",
  },
  rate: {
    type: "number",
    minimum: 0,
    maximum: 1,
    default: 0,
    help: "Share of all keys with failing loads; always the same keys.",
  },
  seed: {
    type: "number",
    integer: true,
    default: 0,
    help: "Chooses those keys.",
  },
  "gap_indices": {
    type: "numbers",
    integer: true,
    minimum: 0,
    default: [],
    help: "Positions in each load that fail, counted from its front.",
  },
  "gap_tail_ratios": {
    type: "numbers",
    minimum: 0,
    maximum: 1,
    default: [],
    help:
      "Positions in each load that fail, as a fraction of its length from its end: 0 is the last object, 1 the first.",
  },
} as const;

/**
 * Wraps another adapter and makes some loads fail although lookups find the objects. Passes
 * everything else through.
 */
const faultInject: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "fault_inject",
  summary: "Wraps another adapter and makes some loads fail: for fault drills, not for production.",
  config,
  async create(values, { open }) {
    const { inner } = values;
    const { type, ...rest } = inner;
    if (typeof type !== "string") {
      fail("inner.type", "an adapter type", type === undefined ? "nothing" : typeof type);
    }
    if (open === undefined) return fail("inner", "a cache that opens it", "none");
    const adapter = await open({ ...rest, type });
    return injectFaults(adapter, type, values);
  },
});
export default faultInject;

const logger = getLogger(["kvtier", "adapter"]);

function injectFaults(
  inner: L2Adapter,
  type: string,
  values: ConfigValues<typeof config>,
): L2Adapter {
  const { rate, seed, gap_indices: gapIndices, gap_tail_ratios: gapTailRatios } = values;
  const isDropped = drops({ rate, seed, gapIndices, gapTailRatios });
  let droppedLoads = 0;
  if (rate > 0 || gapIndices.length + gapTailRatios.length > 0) {
    logger.warn("fault_inject: loads from {type} fail on purpose", { type });
  }
  return wrapAdapter(inner, {
    async load(objects, options) {
      const dropped = Bitmap.from(objects, ({ key }, i) => isDropped(key, i, objects.length));
      const { onLoaded } = options;
      const report: typeof onLoaded = onLoaded && ((...args) => {
        if (!dropped.test(args[0])) onLoaded(...args);
      });
      const loaded = await inner.load(objects, report ? { ...options, onLoaded: report } : options);
      return Bitmap.from(objects, (_, i) => {
        if (!loaded.test(i) || !dropped.test(i)) return loaded.test(i);
        droppedLoads++;
        return false;
      });
    },
    reportStatus: () => ({
      ...inner.reportStatus?.(),
      faultInject: { inner: type, rate, seed, gapIndices, gapTailRatios, droppedLoads },
    }),
  });
}
