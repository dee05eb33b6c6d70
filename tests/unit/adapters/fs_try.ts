// Opens and closes an fs adapter in each directory of its arguments; prints the refused
// configuration key, or "open".
import { ConfigError } from "../../../src/adapter/contract.ts";
import { openFs } from "../../support/fs_adapter.ts";

const outcomes: string[] = [];
for (const path of Deno.args) {
  try {
    await using _ = await openFs({ base_path: path, recover_on_start: false });
    outcomes.push("open");
  } catch (error) {
    outcomes.push(error instanceof ConfigError ? `${error.key}` : `${error}`);
  }
}
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify(outcomes));
