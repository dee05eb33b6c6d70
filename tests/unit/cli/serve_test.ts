import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { runCommand } from "../../../src/cli/command.ts";
import { kvtier } from "../../../src/cli/commands.ts";
import { l2, runKvtier, testHost } from "../../support/cli.ts";
import { directoryOf } from "../../support/module_files.ts";
import { waitUntil } from "../../support/wait_until.ts";

/** Runs `kvtier serve` until `work` with its URL has ended. */
async function serve(args: string[], work: (url: URL) => Promise<void>) {
  const stop = new AbortController();
  const { host, texts } = testHost({ signal: stop.signal });
  const done = runCommand("kvtier", kvtier, ["serve", "--port", "0", ...args], host);
  const found = () => /Serving (\S+)/.exec(texts.out + texts.err)?.[1];
  try {
    await waitUntil(() => found() !== undefined);
    await work(new URL(found() ?? ""));
  } finally {
    stop.abort();
  }
  return { code: await done, ...texts };
}

Deno.test("kvtier serve shows the adapters of a configuration until it is stopped", async () => {
  await using directory = await directoryOf({});
  const fs = { type: "fs", "base_path": join(directory.path, "kv") };
  const { code, out } = await serve([...l2(fs), "--json"], async (url) => {
    const status = await (await fetch(new URL("status", url))).json();
    assertEquals(status.adapters.map(({ type }: { type: string }) => type), ["fs"]);
  });
  assertEquals([code, Object.keys(JSON.parse(out))], [0, ["url"]]);
});

Deno.test("kvtier serve reads its token from a file or a variable", async () => {
  await using directory = await directoryOf({
    "token": "a-token-of-some-length\n",
    "l2.jsonc": `[{ "type": "dram", "max_capacity_gb": 0.01 }]`,
  });
  const tokenFile = join(directory.path, "token");
  await Deno.chmod(tokenFile, 0o600);
  const config = ["--l2-config", join(directory.path, "l2.jsonc"), "--hostname", "0.0.0.0"];
  const { code } = await serve([...config, "--token-file", tokenFile], async (url) => {
    const ask = async (token: string) => {
      const headers = { authorization: `Bearer ${token}` };
      const response = await fetch(new URL("status", url), { headers });
      await response.body?.cancel();
      return response.status;
    };
    assertEquals(await ask("a-token-of-other-length"), 401);
    assertEquals(await ask("a-token-of-some-length"), 200);
  });
  assertEquals(code, 0);

  const refused = async (...args: string[]) => {
    const result = await runKvtier(["serve", ...config, ...args]);
    assertEquals(result.code, 2);
    return result.err;
  };
  assertStringIncludes(await refused(), "other hosts can reach 0.0.0.0");
  assertStringIncludes(await refused("--port", "http"), "--port: expected a port from 0 to 65535");
  await Deno.chmod(tokenFile, 0o644);
  assertStringIncludes(await refused("--token-file", tokenFile), "chmod 600 it");
  assertStringIncludes(await refused("--token-env", "KVTIER_NO_SUCH_TOKEN"), "--token-env");
});
