import { runAdapterConformance } from "../../src/testing/mod.ts";
import { mapAdapter, moduleOf } from "../support/adapters.ts";

// An adapter without optional methods must also conform.
runAdapterConformance({
  module: moduleOf(() => mapAdapter(), "map"),
  config: () => ({ config: {} }),
});
