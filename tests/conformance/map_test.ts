import { runAdapterConformance } from "../../src/testing/mod.ts";
import { mapAdapter, moduleOf } from "../support/adapters.ts";

// An adapter without any optional method passes too.
runAdapterConformance({
  module: moduleOf(() => mapAdapter(), "map"),
  config: () => ({ config: {} }),
});
