import { defineL2Adapter, type L2Adapter } from "../../src/adapter/contract.ts";
import { wrapAdapter } from "../../src/adapter/wrap_adapter.ts";

/** An adapter of which one method hangs and the others pass everything to another adapter. */
export default defineL2Adapter({
  type: "hanging",
  summary: "Written by a test.",
  config: {
    inner: { type: "record", required: true, help: "The other one." },
    method: { type: "string", required: true, help: "The method that hangs." },
  },
  async create({ inner, method }, { open }) {
    // deno-lint-ignore no-explicit-any -- it stands for any method
    const hang = (): any => new Promise(() => {});
    if (method === "create") return await hang();
    const adapter = await open?.(inner as { type: string });
    if (adapter === undefined) throw new Error("cannot open");
    const hanging = { [method]: hang } as Partial<L2Adapter>;
    if (method === "list") {
      hanging.list = () => ({ [Symbol.asyncIterator]: () => ({ next: hang, return: hang }) });
    }
    if (method === "close") {
      hanging[Symbol.asyncDispose] = () => adapter[Symbol.asyncDispose]().then(hang);
    }
    return wrapAdapter(adapter, hanging);
  },
});
