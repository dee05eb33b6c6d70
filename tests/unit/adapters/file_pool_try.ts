// Opens a file_pool adapter, stores objects, loads them and stops; prints the outcome. Arguments:
// the directory, and the number of slots and backend_params as JSON.
import { join } from "@std/path";
import type { AdapterError } from "../../../src/adapter/contract.ts";
import { testKeys } from "../../support/objects.ts";
import { load, openPool, statusOf, store } from "./file_pool_tools.ts";

const [path = "", slots = "4", params = '{"slot_bytes":4096,"files":2}', bytes = "1000"] =
  Deno.args;
const errors: AdapterError[] = [];
const said: Record<string, unknown> = {};
try {
  const options = { slots: Number(slots), params: JSON.parse(params) };
  await using adapter = await openPool(path, options, { onError: (error) => errors.push(error) });
  said.stored = await store(adapter, testKeys(3), Number(bytes));
  said.loaded = await load(adapter, testKeys(3), Number(bytes));
  said.status = statusOf(adapter);
} catch (error) {
  said.refusal = String(error);
}
said.errors = errors.map(({ operation, message, code, key }) => {
  return { operation, message, code, hasKey: key !== undefined };
});
const modes: Record<string, string> = {};
const names = (await Array.fromAsync(Deno.readDir(path))).map(({ name }) => name).sort();
for (const name of [".", ...names]) {
  modes[name] = (((await Deno.lstat(join(path, name))).mode ?? 0) & 0o7777).toString(8);
}
// deno-lint-ignore no-console -- the test reads it
console.log(JSON.stringify({ ...said, modes }));
