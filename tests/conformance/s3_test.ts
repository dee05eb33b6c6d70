import s3 from "../../adapters/s3.ts";
import { type AdapterConformanceCase, adapterConformanceCases } from "../../src/testing/mod.ts";
import { startS3 } from "../support/s3_server.ts";
import { ScriptedS3 } from "../support/scripted_s3.ts";

type Options = Readonly<Record<string, unknown>>;

const pieces: Options = {
  "part_bytes": 70_000,
  "multipart_above_bytes": 0,
  "ranges_above_bytes": 0,
  "max_capacity_gb": 1,
};

let prefixes = 0;

/** Each case has its own prefix, which isolates it like a bucket of its own. */
async function runCases(
  t: Deno.TestContext,
  cases: readonly AdapterConformanceCase[],
  options: Options,
): Promise<void> {
  const config = () => ({ config: { ...options, "key_prefix": `case/${prefixes++}/` } });
  const boundedConfig = (capacityBytes: number) => ({
    config: { ...config().config, "max_capacity_gb": capacityBytes / 2 ** 30 },
  });
  const bounds = "max_capacity_gb" in options ? { boundedConfig } : {};
  for (const { name, run } of cases) {
    await t.step(name, () => run({ module: s3, config, ...bounds }));
  }
}

/**
 * What s3rver does not support: it overwrites an object in place, so that a concurrent reader gets
 * bytes of both. The scripted server does not.
 */
const isBeyondS3rver = ({ name }: AdapterConformanceCase): boolean =>
  name.startsWith("concurrent stores and loads of the same keys");

/** Cases about the answers of a server, for which a real one is asked as well. */
const asksServer = /gives back|replaces|delete|usage|list/;

Deno.test("s3 adapter on s3rver", async (t) => {
  await using server = await startS3();
  const cases = adapterConformanceCases.filter((each) => {
    return asksServer.test(each.name) && !isBeyondS3rver(each);
  });
  await t.step("one request an object", (t) => runCases(t, cases, server.config));
  await t.step("in pieces, bounded by itself", (t) => {
    return runCases(t, cases, { ...server.config, ...pieces });
  });
});

Deno.test("s3 adapter on a server in memory", async (t) => {
  await using server = new ScriptedS3();
  const cases = adapterConformanceCases;
  await t.step("one request an object", (t) => runCases(t, cases, server.config));
  await t.step("in pieces, bounded by itself", (t) => {
    return runCases(t, cases, { ...server.config, ...pieces });
  });
});
