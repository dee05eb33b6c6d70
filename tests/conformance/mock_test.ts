import mock from "../../adapters/mock.ts";
import { runAdapterConformance } from "../../src/testing/mod.ts";

const GIB = 2 ** 30;

runAdapterConformance({
  module: mock,
  capabilities: { evicts: true, acceptsShortObjects: true },
  config: () => ({ config: { max_size_gb: 1, mock_bandwidth_gb: 1000 } }),
  boundedConfig: (capacityBytes) => ({
    config: { max_size_gb: capacityBytes / GIB, mock_bandwidth_gb: 1000 },
  }),
});
