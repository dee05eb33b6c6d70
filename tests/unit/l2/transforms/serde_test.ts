import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { join } from "@std/path";
import filePool from "../../../../adapters/file_pool.ts";
import fs from "../../../../adapters/fs.ts";
import mock from "../../../../adapters/mock.ts";
import { defineL2Adapter, type L2AdapterModule } from "../../../../src/adapter/contract.ts";
import { ConfigError } from "../../../../src/base/config_error.ts";
import { mapAdapter, moduleOf } from "../../../support/adapters.ts";
import { runChild } from "../../../support/child.ts";
import { tempDirectory } from "../../../support/temp_directory.ts";
import { masterKeyHex, openGuard } from "./chains.ts";

const HEX = masterKeyHex(0xab);
const BASE64 = new Uint8Array(32).fill(0xab).toBase64();
Deno.env.set("KVTIER_TEST_KEY", HEX);
Deno.env.set("KVTIER_TEST_BASE64", `${BASE64}\n`);
Deno.env.set("KVTIER_TEST_SHORT", HEX.slice(0, 62));
Deno.env.set("KVTIER_TEST_PASSWORD", "correct horse battery staple ...");
const aesgcm = { type: "aesgcm", "master_key_env": "KVTIER_TEST_KEY" };
const memory = { "max_size_gb": 1, "mock_bandwidth_gb": 1000 };

/** Error of opening an adapter; fails if it opens, or if the message contains the key. */
async function refusal(
  serde: unknown,
  module: L2AdapterModule = mock,
  config: Readonly<Record<string, unknown>> = memory,
): Promise<ConfigError> {
  const error = await openGuard(module, config, serde).then(async (opened) => {
    await opened[Symbol.asyncDispose]();
  }, (error) => error);
  assertInstanceOf(error, ConfigError);
  for (const secret of [HEX.slice(0, 32), BASE64.slice(0, 20), "correct horse"]) {
    assert(!error.message.includes(secret), error.message);
  }
  return error;
}

const wrong: Readonly<Record<string, [serde: unknown, key: string]>> = {
  "no object": ["zstd", "serde"],
  "null": [null, "serde"],
  "no type": [{}, "serde"],
  "an unknown type": [{ type: "fp8" }, "serde"],
  "none at all": [[], "serde"],
  "one twice": [[{ type: "zstd" }, { type: "zstd" }], "serde"],
  "an unknown key": [{ type: "zstd", levle: 3 }, "levle"],
  "a level that is none": [{ type: "zstd", level: 23 }, "level"],
  "no master key": [{ type: "aesgcm" }, "master_key_path"],
  "two master keys": [{ ...aesgcm, "master_key_path": "x" }, "master_key_path"],
  "a master key in the configuration": [{ type: "aesgcm", key: HEX }, "key"],
  "a key of 128 bits": [{ ...aesgcm, "aes_bits": 128 }, "aes_bits"],
  "a variable that is not set": [
    { type: "aesgcm", "master_key_env": "KVTIER_TEST_NOT_SET" },
    "master_key_env",
  ],
  "a key in place of the name of a variable": [
    { type: "aesgcm", "master_key_env": `${BASE64}` },
    "master_key_env",
  ],
  "a key as the name of a variable": [{ type: "aesgcm", "master_key_env": HEX }, "master_key_env"],
  "a key as a path": [{ type: "aesgcm", "master_key_path": BASE64 }, "master_key_path"],
  "a key that is too short": [
    { type: "aesgcm", "master_key_env": "KVTIER_TEST_SHORT" },
    "master_key_env",
  ],
  "a password": [
    { type: "aesgcm", "master_key_env": "KVTIER_TEST_PASSWORD" },
    "master_key_env",
  ],
};

for (const [what, [serde, key]] of Object.entries(wrong)) {
  Deno.test(`serde: ${what} is refused, and named`, async () => {
    const error = await refusal(serde);
    assertEquals(error.key, key);
    assert(error.adapter.startsWith("mock adapter"), error.adapter);
  });
}

Deno.test("serde: a key file that others can read is refused, and other shapes of keys work", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "key");
  const serde = { type: "aesgcm", "master_key_path": path };
  assertEquals((await refusal(serde)).key, "master_key_path");
  const contents = [
    new Uint8Array(32).fill(0xab),
    new TextEncoder().encode(`${HEX.toUpperCase()}\n`),
    new TextEncoder().encode(BASE64),
  ];
  for (const content of contents) {
    await Deno.writeFile(path, content);
    for (const mode of [0o640, 0o604, 0o620, 0o602, 0o644]) {
      await Deno.chmod(path, mode);
      const { received } = await refusal(serde);
      assert(String(received).includes("read or written by others"), String(received));
    }
    for (const mode of [0o600, 0o400]) {
      await Deno.chmod(path, mode);
      const opened = await openGuard(mock, memory, serde);
      await opened[Symbol.asyncDispose]();
    }
    await Deno.chmod(path, 0o600);
  }
  const wrong = [
    new Uint8Array(31).fill(0xab),
    new Uint8Array(33).fill(0xab),
    new Uint8Array(5000),
    new Uint8Array(0),
    // 16 bytes in hex are as long as 32 raw ones.
    new TextEncoder().encode(HEX.slice(0, 32)),
  ];
  for (const content of wrong) {
    await Deno.writeFile(path, content);
    assertEquals((await refusal(serde)).key, "master_key_path");
  }
  await Deno.remove(path);
  await Deno.mkdir(path, { mode: 0o700 });
  await refusal(serde);
});

Deno.test("serde: the shapes of a key are the same key", async () => {
  const opened = await Promise.all(
    ["KVTIER_TEST_KEY", "KVTIER_TEST_BASE64"].map((name) =>
      openGuard(mock, memory, { type: "aesgcm", "master_key_env": name })
    ),
  );
  for (const each of opened) await each[Symbol.asyncDispose]();
});

Deno.test("serde: compression needs an adapter that loads what is shorter", async () => {
  const error = await refusal({ type: "zstd" }, moduleOf(() => mapAdapter(), "map"), {});
  assertEquals([error.adapter, error.key, error.received], ["map adapter", "serde", "zstd"]);
  const both = await refusal([{ type: "zstd" }, aesgcm], moduleOf(() => mapAdapter(), "map"), {});
  assertEquals(both.received, "zstd, aesgcm");
  await using directory = await tempDirectory();
  const pool = { "pool_size": 2, "backend_params": { "file_path": directory.path } };
  assertEquals((await refusal({ type: "zstd" }, filePool, pool)).key, "serde");
  await using opened = await openGuard(filePool, pool, aesgcm);
  assertEquals(opened.errors, []);
});

Deno.test("serde: compression without the permission that its threads need is refused", async () => {
  const program = new URL("./zstd_without_read.ts", import.meta.url);
  const refused = await runChild(program, { permissions: ["--no-prompt"] });
  assertEquals(refused, "mock adapter: zstd: threads");
  const permissions = ["--no-prompt", "--allow-read"];
  assertEquals(await runChild(program, { permissions }), "opened");
});

Deno.test("serde: files for others, which carry no seal, are not transformed", async () => {
  await using directory = await tempDirectory();
  const config = {
    "base_path": directory.path,
    "file_layout": "lmcache",
    "accept_unsealed": true,
  };
  for (const serde of [aesgcm, { type: "zstd" }]) {
    assertEquals((await refusal(serde, fs, config)).adapter, "fs adapter");
  }
});

Deno.test("serde: an adapter with a key of that name gets it itself", async () => {
  let given: unknown;
  const module = defineL2Adapter({
    type: "own",
    summary: "Has a serde of its own.",
    config: { serde: { type: "string", help: "Its own." } },
    create({ serde }) {
      given = serde;
      return mapAdapter();
    },
  });
  await using opened = await openGuard(module as unknown as L2AdapterModule, {}, "mine");
  assertEquals([given, opened.guard.reportStatus().details], ["mine", {}]);
});
