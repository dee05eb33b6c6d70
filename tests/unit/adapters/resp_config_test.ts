import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import resp from "../../../adapters/resp.ts";
import { ConfigError } from "../../../src/adapter/contract.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import { testEnvironment } from "../../support/adapters.ts";
import { testKeys } from "../../support/objects.ts";
import { redisTest, startRedis, startRedisCluster } from "../../support/redis_server.ts";
import { loadBits, openResp, storeBits } from "../../support/resp_adapter.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

const SECRET = "correct-horse-battery";

async function refusal(config: Readonly<Record<string, unknown>>): Promise<ConfigError> {
  const error = await assertRejects(
    async () => {
      await using _ = await resp.create(parseAdapterConfig(resp, config), testEnvironment());
    },
    ConfigError,
  );
  const shown = Deno.inspect(error, { depth: 10 });
  assert(!shown.includes(SECRET), `the password is shown: ${shown}`);
  return error;
}

Deno.test("an unusable configuration is refused with its key", async () => {
  const host = "127.0.0.1";
  const url = "redis://127.0.0.1";
  const wrong: readonly (readonly [string, Readonly<Record<string, unknown>>])[] = [
    ["host", {}],
    ["host", { host: " " }],
    ["host", { host: `redis://u:${SECRET}@127.0.0.1:6379/0` }],
    ["host", { host: `u:${SECRET}@127.0.0.1` }],
    ["host", { host: "127.0.0.1\nx" }],
    ["host", { host: `u:${SECRET}@h`, url }],
    ["host", { host, url }],
    ["port", { port: 1, url }],
    ["port", { host, port: 0 }],
    ["url", { url: "http://127.0.0.1" }],
    ["url", { url: `http://u:${SECRET}@127.0.0.1` }],
    ["url", { url: `u:${SECRET}` }],
    ["cluster", { url: "redis://h:1,redis://h:2" }],
    ["url", { url: `redis://a:${SECRET}@h:1,redis://h:2`, cluster: true }],
    ["url", { url: `redis://h?password=${SECRET}` }],
    ["tls", { url: "rediss://h", tls: false }],
    ["db", { url: "redis://h/1", db: 2 }],
    ["username", { url: `redis://a:${SECRET}@h`, username: "b" }],
    ["password", { url: `redis://a:${SECRET}@h`, password: `${SECRET}2` }],
    ["password_env", { url: `redis://a:${SECRET}@h`, "password_env": "HOME" }],
    ["db", { host, cluster: true, db: 1 }],
    ["db", { url: "redis://h/3", cluster: true }],
    ["tls_ca_file", { host, "tls_ca_file": "ca.pem" }],
    ["tls_ca_file", { host, tls: true, "tls_ca_file": "/nowhere/ca.pem" }],
    ["password_env", { host, "password_env": "KVTIER_TEST_UNSET" }],
    ["password_env", { host, "password_env": "HOME", password: SECRET }],
    ["key_prefix", { host, "key_prefix": "a{b" }],
    ["chunk_bytes", { host, "chunk_bytes": 1 }],
    ["num_workers", { host, "num_workers": 0 }],
    ["ttl_seconds", { host, "ttl_seconds": 0.0004 }],
    ["max_capacity_gb", { host, "max_capacity_gb": 1e-10 }],
    ["eviction.trigger_watermark", { host, eviction: { "trigger_watermark": 2 } }],
  ];
  for (const [key, config] of wrong) {
    assertEquals((await refusal(config)).key, key, JSON.stringify(config));
  }
});

redisTest(
  "a password that the server refuses is a wrong configuration, and is never shown",
  async () => {
    await using server = await startRedis([`requirepass ${SECRET}-right`]);
    const where = { host: "127.0.0.1", port: server.port };
    for (const how of [{ password: SECRET }, {}, { password: SECRET, username: "nobody" }]) {
      assertEquals((await refusal({ ...where, ...how })).key, "password");
    }
    const wrong = await refusal({ url: `redis://u:${SECRET}@127.0.0.1:${server.port}` });
    assertEquals(wrong.key, "password");
  },
);

redisTest("a password is taken from the configuration, a variable or a URL", async () => {
  await using server = await startRedis([`requirepass ${SECRET}`]);
  const variable = "KVTIER_TEST_REDIS_PASSWORD";
  Deno.env.set(variable, SECRET);
  try {
    for (const config of [{ password: SECRET }, { "password_env": variable }]) {
      await using adapter = await openResp(server.port, config);
      assertEquals(await storeBits(adapter, testKeys(1), 100), "1");
      assert(!JSON.stringify(adapter.reportStatus?.()).includes(SECRET));
    }
    const url = `redis://default:${SECRET}@127.0.0.1:${server.port}/2`;
    await using adapter = await resp.create(
      parseAdapterConfig(resp, { url }),
      testEnvironment(),
    );
    assertEquals(await loadBits(adapter, testKeys(1), 100), "0", "another database");
    assert(!JSON.stringify(adapter.reportStatus?.()).includes(SECRET));
  } finally {
    Deno.env.delete(variable);
  }
});

redisTest("a server user with access to the prefix only is enough", async () => {
  const rules = "~kvtier:* resetchannels -@all +get +getrange +set +del +unlink +exists +eval " +
    "+persist +pexpire +touch +scan +object";
  await using server = await startRedis([`user cache on >${SECRET} ${rules}`]);
  const errors: unknown[] = [];
  const config = { username: "cache", password: SECRET, "chunk_bytes": 100, "max_capacity_gb": 1 };
  await using adapter = await openResp(server.port, config, {
    onError: (error) => errors.push(error),
  });
  assertEquals(await storeBits(adapter, testKeys(3), 1000), "111");
  assertEquals(await loadBits(adapter, testKeys(3), 1000), "111");
  assertEquals(
    (await Array.fromAsync(adapter.list?.({ signal: new AbortController().signal }) ?? [])).length,
    3,
  );
  const removed = await adapter.delete?.(testKeys(3), { signal: new AbortController().signal });
  assertEquals(removed?.bytes, 3000);
  assertEquals(errors, []);
});

redisTest(
  "a cluster that is taken for a server, or a server for a cluster, is refused",
  async () => {
    await using server = await startRedis();
    const alone = { host: "127.0.0.1", port: server.port };
    assertEquals((await refusal({ ...alone, cluster: true })).key, "cluster");
    assertEquals((await refusal({ ...alone, db: 99 })).key, "db");
    await using cluster = await startRedisCluster(2);
    assertEquals(
      (await refusal({ host: "127.0.0.1", port: cluster.nodes[0]?.port })).key,
      "cluster",
    );
  },
);

redisTest("TLS is used, and an unknown certificate is not trusted", async () => {
  await using directory = await tempDirectory();
  const [key, cert] = ["key.pem", "cert.pem"].map((name) => join(directory.path, name)) as [
    string,
    string,
  ];
  const names = "subjectAltName=IP:127.0.0.1";
  const args = [
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-days",
    "2",
    "-subj",
    "/CN=kvtier",
  ];
  const made = await new Deno.Command("openssl", {
    args: [...args, "-addext", names, "-keyout", key, "-out", cert],
    stderr: "piped",
  }).output();
  assert(made.success, new TextDecoder().decode(made.stderr));
  await using server = await startRedis();
  const port = server.port + 10_000;
  await server.command("CONFIG", "SET", "tls-cert-file", cert, "tls-key-file", key);
  const set = ["tls-ca-cert-file", cert, "tls-auth-clients", "no", "tls-port", String(port)];
  assertEquals(await server.command("CONFIG", "SET", ...set), "OK");
  {
    await using adapter = await openResp(port, { tls: true, "tls_ca_file": cert });
    assertEquals(await storeBits(adapter, testKeys(3), 700_000), "111");
    assertEquals(await loadBits(adapter, testKeys(3), 700_000), "111");
  }
  await using stranger = await openResp(port, { tls: true });
  const error = await assertRejects(() => storeBits(stranger, testKeys(1), 100));
  assertStringIncludes(String(error), "resp: store failed");
});
