// Opens fs adapters with limits that need a missing permission; prints the errors.
import { ConfigError } from "../../../src/adapter/contract.ts";
import { openFs } from "../../support/fs_adapter.ts";

const [basePath = ""] = Deno.args;
const errors: string[] = [];
for (const limit of [{ disk_high_watermark: 0.9 }, { disk_min_free_gb: 1 }]) {
  try {
    await using _ = await openFs({ base_path: basePath, ...limit });
  } catch (error) {
    errors.push(error instanceof ConfigError ? `${error.key}: ${error.expected}` : `${error}`);
  }
}
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify(errors));
