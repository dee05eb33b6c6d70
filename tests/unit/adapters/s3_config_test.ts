import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { ConfigError } from "../../../src/base/config_error.ts";
import { AdapterError } from "../../../src/adapter/errors.ts";
import { testKeys } from "../../support/objects.ts";
import { loadBits, openS3, openS3Lab, storeBits } from "../../support/s3_adapter.ts";
import { error, ScriptedS3, SECRETS } from "../../support/scripted_s3.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

type Config = Readonly<Record<string, unknown>>;

const base: Config = {
  "s3_endpoint": "http://127.0.0.1:9/kv-bucket",
  "s3_region": "us-east-1",
  "aws_access_key_id": "id",
  "aws_secret_access_key": SECRETS[0],
};

/** The key that a configuration error names; checks that the error contains no secret. */
async function failingKey(config: Config): Promise<string | undefined> {
  const failure = await assertRejects(() => openS3({ ...base, ...config }), ConfigError);
  for (const secret of SECRETS) assert(!Deno.inspect(failure).includes(secret), failure.message);
  return failure.key;
}

Deno.test("an unusable configuration is refused with its key", async () => {
  const wrong: readonly (readonly [Config, string])[] = [
    [{ "s3_endpoint": "" }, "s3_endpoint"],
    [{ "s3_endpoint": "ftp://host/bucket" }, "s3_endpoint"],
    [{ "s3_endpoint": "http://127.0.0.1:9000" }, "s3_endpoint"],
    [{ "s3_endpoint": "https://s3.eu-west-1.amazonaws.com" }, "s3_endpoint"],
    [{ "s3_endpoint": "s3://kv.example.com" }, "s3_endpoint"],
    [{ "s3_endpoint": "s3://my-bucket/prefix" }, "s3_endpoint"],
    [{ "s3_use_path_style": false }, "s3_use_path_style"],
    [{ "max_capacity_gb": 1e-10 }, "max_capacity_gb"],
    [{ "s3_endpoint": "http://localhost:9000" }, "s3_endpoint"],
    [{ "s3_endpoint": "http://host/bucket/and/more" }, "s3_endpoint"],
    [{ "s3_endpoint": `http://user:${SECRETS[0]}@host/bucket` }, "s3_endpoint"],
    [{ "s3_endpoint": `http://host/bucket?key=${SECRETS[0]}` }, "s3_endpoint"],
    [{ bucket: "another" }, "s3_endpoint"],
    [{ bucket: "a/b" }, "bucket"],
    [{ "s3_region": "" }, "s3_region"],
    [{ "s3_endpoint": "https://host/bucket", "disable_tls": true }, "disable_tls"],
    [{ "s3_enable_s3express": true }, "s3_enable_s3express"],
    [{ "key_prefix": "/a" }, "key_prefix"],
    [{ "key_prefix": "a//b" }, "key_prefix"],
    [{ "key_prefix": "a/../b" }, "key_prefix"],
    [{ "key_prefix": "a&b" }, "key_prefix"],
    [{ "part_bytes": 0 }, "part_bytes"],
    [{ "tls_ca_file": "/nowhere" }, "tls_ca_file"],
    [{ "aws_access_key_id": undefined }, "aws_access_key_id"],
    [{ "aws_secret_access_key": undefined }, "aws_secret_access_key"],
    [{ "max_attempts": 0 }, "max_attempts"],
    [{ path: "x" }, "path"],
  ];
  for (const [config, key] of wrong) {
    assertEquals(await failingKey(config), key, JSON.stringify(config));
  }
});

Deno.test("values that are invalid in a header are refused at once, and never shown", async () => {
  for (const bad of ["\n", "\r\n", " ", "\u0000", "\u00e9"]) {
    for (const key of ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"]) {
      const value = `${SECRETS[1]}${bad}`;
      assertEquals(await failingKey({ [key]: value }), key, JSON.stringify(bad));
      if (bad.includes("\u0000")) continue;
      const variable = `KVTIER_TEST_${key.toUpperCase()}`;
      const names = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token"];
      for (const name of names) Deno.env.set(`KVTIER_TEST_${name.toUpperCase()}`, SECRETS[0]);
      Deno.env.set(variable, value);
      try {
        const config = Object.fromEntries(names.flatMap((name) => [
          [name, undefined],
          [`${name}_env`, `KVTIER_TEST_${name.toUpperCase()}`],
        ]));
        assertEquals(await failingKey(config), `${key}_env`);
      } finally {
        for (const name of names) Deno.env.delete(`KVTIER_TEST_${name.toUpperCase()}`);
      }
    }
  }
});

Deno.test({
  name: "a server without --allow-net is refused, because the permission stays missing",
  permissions: { net: false, env: true, read: true },
  async fn() {
    const config = { "s3_endpoint": "http://127.0.0.1:9000/kv-bucket" };
    assertEquals(await failingKey(config), "s3_endpoint");
  },
});

Deno.test("credentials can come from variables of any name", async () => {
  await using server = new ScriptedS3();
  const {
    aws_access_key_id: id,
    aws_secret_access_key: secret,
    aws_session_token: token,
    ...rest
  } = server.config;
  const names = {
    "aws_access_key_id_env": "KVTIER_TEST_ID",
    "aws_secret_access_key_env": "KVTIER_TEST_SECRET",
    "aws_session_token_env": "KVTIER_TEST_TOKEN",
  };
  const open = () => openS3({ ...rest, ...names });
  const failure = await assertRejects(open, ConfigError, "a variable that is set");
  assertEquals(failure.key, "aws_access_key_id_env");
  Deno.env.set("KVTIER_TEST_ID", String(id));
  Deno.env.set("KVTIER_TEST_SECRET", String(secret));
  Deno.env.set("KVTIER_TEST_TOKEN", String(token));
  try {
    await using adapter = await open();
    assertEquals(await storeBits(adapter, testKeys(1), 100), "1");
  } finally {
    for (const name of Object.values(names)) Deno.env.delete(name);
  }
});

Deno.test("an unusable bucket is refused, a silent one is not", async () => {
  await using server = new ScriptedS3();
  const answers: readonly (readonly [number, string, string, Config])[] = [
    [403, "InvalidAccessKeyId", "aws_access_key_id", {}],
    [403, "SignatureDoesNotMatch", "aws_access_key_id", {}],
    [404, "NoSuchBucket", "bucket", {}],
    [301, "PermanentRedirect", "s3_region", {}],
    [400, "AuthorizationHeaderMalformed", "s3_region", {}],
    [403, "AccessDenied", "max_capacity_gb", { "max_capacity_gb": 1 }],
  ];
  for (const [status, code, key, config] of answers) {
    server.script = () => error(status, code);
    assertEquals(
      await failingKey({ ...server.config, ...config }),
      key,
      code,
    );
  }
  const pages = [
    '<?xml version="1.0"?><ListAllMyBucketsResult xmlns="x"><Buckets/></ListAllMyBucketsResult>',
    "<!DOCTYPE html><HTML><body>It works!</body></HTML>",
  ];
  for (const page of pages) {
    server.script = () => new Response(page);
    assertEquals(await failingKey(server.config), "bucket", page);
  }
  for (const [status, code] of [[403, "AccessDenied"], [503, "SlowDown"], [500, "X"]] as const) {
    server.script = () => error(status, code);
    server.takeLog();
    await using open = await openS3(server.config);
    assertEquals(server.takeLog().length, 1, "it is asked once");
    server.script = undefined;
    assertEquals(await storeBits(open, testKeys(1), 100), "1");
  }
});

Deno.test("stored bytes are signed without TLS, unless disabled", async () => {
  for (const [config, isSigned] of [[{}, true], [{ "sign_payload": false }, false]] as const) {
    await using lab = await openS3Lab(config);
    const hashes = new Set<string>();
    lab.server.script = ({ headers }, proceed) => {
      hashes.add(headers.get("x-amz-content-sha256") ?? "");
      return proceed();
    };
    assertEquals(await storeBits(lab, testKeys(2), 100), "11");
    assertEquals(hashes.has("UNSIGNED-PAYLOAD"), !isSigned);
    assertEquals(hashes.size, isSigned ? 2 : 1);
    assertEquals(lab.adapter.reportStatus?.().signsPayload, isSigned);
  }
});

Deno.test("with TLS the payload needs no signature, and the certificate must be trusted", async (t) => {
  await using directory = await tempDirectory();
  const [cert, key] = ["cert.pem", "key.pem"].map((name) => join(directory.path, name));
  assert(cert !== undefined && key !== undefined);
  const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"];
  const subject = [...names, "-addext", "basicConstraints=critical,CA:FALSE"];
  const kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
  const args = [...kind, "-nodes", "-days", "2", "-keyout", key, "-out", cert, ...subject];
  try {
    await new Deno.Command("openssl", { args, stderr: "null" }).output();
  } catch {
    if (Deno.env.get("KVTIER_REQUIRE_SERVERS")) throw new Error("openssl has to be installed");
    await t.step("openssl is not installed: not run", () => {});
    return;
  }
  const [certPem, keyPem] = await Promise.all([cert, key].map((path) => Deno.readTextFile(path)));
  await using server = new ScriptedS3({ cert: certPem ?? "", key: keyPem ?? "" });
  const config = { ...server.config, "s3_endpoint": `https://127.0.0.1:${server.port}` };
  {
    await using stranger = await openS3({ ...config, "max_attempts": 1 });
    await assertRejects(() => storeBits(stranger, testKeys(1), 100), AdapterError, "certificate");
  }
  for (const http2 of [false, true]) {
    const trusted = { ...config, "tls_ca_file": cert, "s3_prefer_http2": http2 };
    await using open = await openS3(trusted);
    assertEquals(await storeBits(open, testKeys(2), 100), "11");
    assertEquals(await loadBits(open, testKeys(2), 100), "11");
    assertEquals(open.adapter.reportStatus?.().signsPayload, false);
  }
});
