/** A program that opens a compressing adapter and prints the outcome as JSON. */
import mock from "../../../../adapters/mock.ts";
import { ConfigError } from "../../../../src/base/config_error.ts";
import { openGuard } from "./chains.ts";

const config = { "max_size_gb": 1, "mock_bandwidth_gb": 1000 };
try {
  await using _ = await openGuard(mock, config, { type: "zstd" });
  await Deno.stdout.write(new TextEncoder().encode('"opened"'));
} catch (error) {
  if (!(error instanceof ConfigError)) throw error;
  await Deno.stdout.write(new TextEncoder().encode(`"${error.adapter}: ${error.key}"`));
}
