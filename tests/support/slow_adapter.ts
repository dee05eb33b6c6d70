import { defineL2Adapter } from "../../src/adapter/contract.ts";
import { withLatency } from "../../src/adapter/with_latency.ts";

/** An adapter that passes everything to another one, slowly. */
export default defineL2Adapter({
  type: "slow",
  summary: "Written by a test.",
  config: { inner: { type: "record", required: true, help: "The other one." } },
  async create({ inner }, { open }) {
    const adapter = await open?.(inner as { type: string });
    if (adapter === undefined) throw new Error("cannot open");
    return withLatency(adapter, { callDelayMs: 40 });
  },
});
