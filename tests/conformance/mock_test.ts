import mock from "../../adapters/mock.ts";
import { runAdapterConformance } from "../../src/testing/mod.ts";

runAdapterConformance({
  module: mock,
  config: () => ({ config: { max_size_gb: 1, mock_bandwidth_gb: 1000 } }),
});
