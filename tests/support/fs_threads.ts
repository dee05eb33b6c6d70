import fs from "../../adapters/fs.ts";
import type { L2Adapter, L2AdapterModule } from "../../src/adapter/contract.ts";
import { waitUntil } from "./wait_until.ts";

/** Waits until the threads of an fs adapter move its objects. */
export async function withThreads(adapter: L2Adapter): Promise<L2Adapter> {
  await waitUntil(() => {
    const { threads } = adapter.reportStatus?.() ?? {};
    return typeof threads === "object" && threads !== null && "phase" in threads &&
      threads.phase === "ready";
  });
  return adapter;
}

/** The fs adapter, whose objects only threads move. */
export const fsInThreads: L2AdapterModule<typeof fs.config> = {
  ...fs,
  create: async (config, environment) => await withThreads(await fs.create(config, environment)),
};
