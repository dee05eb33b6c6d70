import { assert, assertEquals, assertRejects } from "@std/assert";
import { builtInAdapters } from "../../adapters/mod.ts";
import { AdapterRegistry } from "../../src/l2/adapter_registry.ts";
import { asAdapterModule, type L2AdapterModule } from "../../src/adapter/contract.ts";
import type { ConfigField, ConfigFields } from "../../src/adapter/config.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { checkConfig } from "../../src/l2/adapter_config.ts";
import { testKeys, testLayout } from "../support/objects.ts";

const MARKER = "hunter2Hunter2";

const modules: readonly L2AdapterModule[] = await Promise.all(
  Object.values(builtInAdapters).map(async (load) => {
    const { default: exported } = await load() as { default: unknown };
    return asAdapterModule(exported);
  }),
);
const registry = new AdapterRegistry({
  builtIn: modules.map((module) => ({
    name: module.type,
    origin: "test",
    load: () => Promise.resolve({ default: module }),
  })),
});

type Values = Readonly<Record<string, unknown>>;

/** A valid value of a field. */
function plain(field: ConfigField): unknown {
  switch (field.type) {
    case "string":
      return field.oneOf?.[0] ?? "x";
    case "number":
      return Math.max(field.minimum ?? 1, (field.exclusiveMinimum ?? 0) + 1);
    case "numbers":
      return [];
    case "boolean":
      return true;
    case "record":
      return {};
    case "object":
      return required(field.fields);
  }
}

function required(fields: ConfigFields): Values {
  return Object.fromEntries(
    Object.entries(fields).filter(([, field]) => field.required || field.type === "object")
      .map(([key, field]) => [key, plain(field)]),
  );
}

/** Invalid and valid values that contain a secret, for each field. */
function withSecrets(fields: ConfigFields): Values[] {
  const base = required(fields);
  const own = Object.entries(fields).flatMap(([key, field]) => {
    const nested = field.type === "object" ? withSecrets(field.fields) : [];
    const values: unknown[] = [
      MARKER,
      [MARKER],
      { password: MARKER },
      { type: MARKER },
      ` ${MARKER}\n`,
      `redis://user:${MARKER}@host:99999/x`,
      `https://user:${MARKER}@host/bucket?key=${MARKER}`,
      `~/${MARKER}`,
      ...nested,
    ];
    return values.map((value) => ({ ...base, [key]: value }));
  });
  return [...own, { ...base, passwrd: MARKER }, { ...base, "": { deep: MARKER } }];
}

/** Everything visible of a value: messages, causes, own properties. */
function shownOf(value: unknown): string {
  return Deno.inspect(value, { depth: 20, strAbbreviateSize: 1e6, iterableLimit: 1e4 });
}

for (const module of modules) {
  Deno.test(`${module.type}: no message about its configuration shows a value`, async () => {
    let refused = 0;
    for (const values of withSecrets(module.config)) {
      for (const serde of [undefined, MARKER, { type: MARKER }, { type: "zstd", level: MARKER }]) {
        const config = { type: module.type, ...values, ...(serde && { serde }) };
        try {
          await checkConfig(registry, config);
        } catch (error) {
          refused++;
          assert(!shownOf(error).includes(MARKER), shownOf(error));
        }
      }
    }
    assert(refused > 5);
  });
}

/** Fields whose values are secrets, with their path. */
function secretFields(fields: ConfigFields): string[] {
  return Object.entries(fields).flatMap(([key, field]) => {
    const looksSecret = /password|secret|token|access_key$/.test(key) && !/_env$|_id$/.test(key);
    if (looksSecret && field.type === "string") assertEquals(field.secret, true, key);
    return field.type === "string" && field.secret ? [key] : [];
  });
}

const places: Readonly<Record<string, Values>> = {
  resp: { host: "127.0.0.1", port: 1 },
  s3: {
    "s3_endpoint": "http://127.0.0.1:1/bucket",
    "s3_region": "eu-west-1",
    "aws_access_key_id": "id",
    "aws_secret_access_key": "key",
  },
};

for (const module of modules) {
  for (const key of secretFields(module.config)) {
    Deno.test(`${module.type}: ${key} is shown nowhere, whatever fails`, async () => {
      const secrets = [MARKER, `${MARKER}\n`, `\r\nX-${MARKER}: 1`, `\0${MARKER}`, `é${MARKER}`];
      await Promise.all(secrets.map(async (secret) => {
        const place = key === "url" ? {} : places[module.type];
        const value = key === "url" ? `redis://:${encodeURIComponent(secret)}@127.0.0.1:1` : secret;
        const said = await whatIsSaid({ ...place, type: module.type, [key]: value });
        assert(!said.includes(MARKER), said);
      }));
    });
  }
}

/** Keys for the name of a variable, where the secret itself may be put by mistake. */
const variables: readonly Values[] = [
  { type: "resp", host: "127.0.0.1", port: 1, "password_env": MARKER },
  { type: "resp", host: "127.0.0.1", port: 1, "password_env": MARKER, password: "other" },
  { type: "resp", url: "redis://:other@127.0.0.1:1", "password_env": MARKER },
  ...["aws_access_key_id_env", "aws_secret_access_key_env", "aws_session_token_env"].map((key) => ({
    type: "s3",
    "s3_endpoint": "http://127.0.0.1:1/bucket",
    "s3_region": "eu-west-1",
    "aws_access_key_id_env": "HOME",
    "aws_secret_access_key_env": "HOME",
    [key]: MARKER,
  })),
  {
    type: "mock",
    "max_size_gb": 1,
    "mock_bandwidth_gb": 1,
    serde: { type: "aesgcm", "master_key_env": MARKER },
  },
];

for (const isPermitted of [true, false]) {
  const permission = isPermitted ? "with" : "without";
  Deno.test({
    name: `a secret in the place of a variable's name is shown nowhere, ${permission} --allow-env`,
    permissions: { env: isPermitted },
    async fn() {
      for (const config of variables) {
        const said = await whatIsSaid(config as { type: string } & Values);
        assert(!said.includes(MARKER), said);
      }
    },
  });
}

Deno.test("a secret in the place of a variable's name is not shown if the variable is odd", async () => {
  Deno.env.set(MARKER, "line\nbreak");
  try {
    for (const config of variables) {
      const said = await whatIsSaid(config as { type: string } & Values);
      assert(!said.includes(MARKER), said);
    }
  } finally {
    Deno.env.delete(MARKER);
  }
});

/** Opens a cache with a broken adapter and uses it; returns everything shown. */
async function whatIsSaid(config: { type: string } & Values): Promise<string> {
  const timeouts = { lookupMs: 100, storeMs: 100, loadMs: 100, closeMs: 100 };
  try {
    const l2 = [config];
    await using cache = await TieredCache.open({ device: new HostDevice(), l2, timeouts });
    const events: unknown[] = [];
    for (const type of ["adapterchanged", "dropped", "damaged"] as const) {
      cache.events.addEventListener(type, ({ detail }) => events.push(detail));
    }
    const [reservation] = cache.reserveWrite(testKeys(1), testLayout(1024));
    if (reservation?.status === "success") cache.finishWrite([reservation.staged]);
    using _ = await cache.match(testKeys(1, 5), testLayout(1024));
    const flushed = await cache.flush({ deadlineMs: 200 });
    return shownOf([cache.reportStatus(), events, flushed, cache]);
  } catch (error) {
    return shownOf(error);
  }
}

Deno.test("an l2 entry shows nothing of what it holds, whatever it is", async () => {
  const entries: unknown[] = [
    MARKER,
    [MARKER],
    { typ: "resp", password: MARKER },
    { type: MARKER, password: MARKER },
    { type: { password: MARKER } },
    { type: "fault_inject", inner: { typ: "resp", password: MARKER } },
    { type: "fault_inject", inner: { type: "resp", host: "h", passwrd: MARKER } },
    { type: "fault_inject", inner: MARKER },
    { type: "connector", module: "./none.ts", params: { password: MARKER } },
    { type: "plugin", module: "./none.ts", params: { password: MARKER } },
    { type: "plugin", module: "./none.ts", params: MARKER },
    { type: "resp", url: `redis://user:${MARKER}@host:99999/x` },
    { type: "resp", url: `redis://user:${MARKER}@127.0.0.1:1`, host: "other" },
    { type: "s3", "s3_endpoint": `https://user:${MARKER}@127.0.0.1:1/bucket`, "s3_region": "r" },
    { type: "s3", "s3_endpoint": `https://127.0.0.1:1/bucket?key=${MARKER}`, "s3_region": "r" },
  ];
  for (const entry of entries) {
    const l2 = [entry as { type: string }];
    const error = await assertRejects(() => TieredCache.open({ device: new HostDevice(), l2 }));
    const shown = shownOf(error);
    assert(!shown.includes(MARKER), shown);
  }
});
