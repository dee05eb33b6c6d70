/**
 * The `resp` adapter: objects on a Redis or Valkey server, or on a cluster of them.
 *
 * @module
 */
import { MAX_GIB } from "../src/base/units.ts";
import {
  boundsOf,
  checkCapacity,
  ConfigError,
  type ConfigValues,
  defineL2Adapter,
  evictionField,
  type L2AdapterModule,
  unmetPath,
} from "../src/adapter/contract.ts";
import { failFor } from "../src/base/config_error.ts";
import { readSecretVariable, unmetVariableName } from "../src/base/secrets.ts";
import { readCertificates } from "./_remote/certificates.ts";
import type { ServerSettings } from "./_resp/connection.ts";
import { RespObjectNames } from "./_resp/object_names.ts";
import { ReplyError } from "./_resp/resp_error.ts";
import { RespStore } from "./_resp/resp_store.ts";
import { parseServerUrl, type ServerUrl, URL_SHAPE } from "./_resp/server_url.ts";

const fail = failFor("resp adapter");

/** Error codes for missing or wrong credentials. */
const REFUSALS = ["WRONGPASS", "NOAUTH"];

/** A host name or an address. A URL is refused: it may hold a password, which errors would show. */
const HOST = /^[^\s/@?#\p{C}]+$/u;

const config = {
  url: {
    type: "string",
    secret: true,
    help: `URL of the server: ${URL_SHAPE}. Replaces host, port, username, password and tls.`,
  },
  host: {
    type: "string",
    check: (host: string): string | undefined =>
      HOST.test(host) ? undefined : "a host name or an address; for a URL use the key url",
    help: "Host name or address of the server, or of a node of the cluster.",
  },
  port: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 65_535,
    help: "TCP port of the server. Default: 6379.",
  },
  username: {
    type: "string",
    help: "User name, if the server has users.",
  },
  password: {
    type: "string",
    secret: true,
    help: "Password; prefer password_env.",
  },
  password_env: {
    type: "string",
    check: unmetVariableName,
    help: "Environment variable that holds the password. Needs --allow-env for it.",
  },
  db: {
    type: "number",
    integer: true,
    minimum: 0,
    help: "Number of the database. Default: 0, the only one of a cluster.",
  },
  tls: {
    type: "boolean",
    help: "Whether to use TLS.",
  },
  tls_ca_file: {
    type: "string",
    check: unmetPath,
    help: "File with the certificates to trust, instead of the system's. Needs --allow-read.",
  },
  cluster: {
    type: "boolean",
    default: false,
    help: "Whether the server is a node of a cluster; the other nodes are discovered.",
  },
  num_workers: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 64,
    default: 1,
    help: "Number of connections per server for stores, and again for everything else.",
  },
  key_prefix: {
    type: "string",
    default: "kvtier:",
    check: (prefix: string): string | undefined =>
      /^[^{}\p{Cc}]{0,128}$/u.test(prefix) ? undefined : "at most 128 characters without { and }",
    help: "Prefix of all keys on the server.",
  },
  chunk_bytes: {
    type: "number",
    integer: true,
    minimum: 16,
    maximum: 2 ** 28,
    default: 1_048_512,
    help:
      "Max bytes of a value on the server; larger objects are split, so that none blocks others.",
  },
  ttl_seconds: {
    type: "number",
    minimum: 0,
    maximum: 1e9,
    default: 0,
    check: (seconds: number): string | undefined =>
      seconds === 0 || seconds >= 0.001 ? undefined : "0, or at least 0.001",
    help: "Lifetime of objects in seconds, rounded to milliseconds; 0: unlimited.",
  },
  max_capacity_gb: {
    type: "number",
    minimum: 0,
    maximum: MAX_GIB,
    default: 0,
    check: checkCapacity,
    help: "Max GiB of objects below key_prefix; the server must not evict by itself then. 0: its " +
      "maxmemory and maxmemory-policy apply.",
  },
  eviction: {
    ...evictionField,
    help: "How to evict if max_capacity_gb is given: above trigger_watermark, eviction_ratio of " +
      "the capacity is removed.",
  },
  connect_timeout_ms: {
    type: "number",
    integer: true,
    minimum: 1,
    maximum: 60_000,
    default: 1_500,
    help: "Max time to open a connection, in milliseconds.",
  },
} as const;

type RespValues = ConfigValues<typeof config>;

/**
 * Objects on a server that speaks RESP, such as Redis or Valkey.
 *
 * Requires `--allow-net` for the servers, `--allow-env` for `password_env` and `--allow-read` for
 * `tls_ca_file`.
 */
const resp: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "resp",
  summary: "Objects on a Redis or Valkey server, or on a cluster of them.",
  config,
  capabilities: { durable: true, shared: true, evicts: true },
  async create(values, { clock, onError, onEvicted }) {
    const target = targetOf(values);
    const { cluster: isCluster } = values;
    if (isCluster && (values.db ?? target.database ?? 0) !== 0) {
      fail("db", "0 with cluster", values.db ?? target.database);
    }
    if (!isCluster && target.servers.length > 1) {
      fail("cluster", "true with several servers", false);
    }
    const isEncrypted = values.tls ?? target.isEncrypted;
    if (values.tls_ca_file !== undefined && !isEncrypted) {
      fail("tls_ca_file", "tls: true as well", values.tls_ca_file);
    }
    const ca = await readCertificates(values.tls_ca_file, fail);
    const settings: ServerSettings = {
      library: await import("@redis/client"),
      servers: target.servers,
      isCluster,
      username: values.username || target.username,
      password: await passwordOf(values) ?? target.password,
      database: values.db ?? target.database ?? 0,
      tls: isEncrypted ? { ca } : undefined,
      connectTimeoutMs: values.connect_timeout_ms,
      clock,
    };
    const store = new RespStore({
      settings,
      names: new RespObjectNames(values.key_prefix),
      connections: values.num_workers,
      chunkBytes: values.chunk_bytes,
      ttlMs: Math.round(values.ttl_seconds * 1000),
      bounds: boundsOf(values.max_capacity_gb, values.eviction),
      onError,
      onEvicted,
    });
    try {
      await probeServer(store, settings);
    } catch (error) {
      await store[Symbol.asyncDispose]();
      throw error;
    }
    store.start();
    return store;
  },
});
export default resp;

/**
 * Fails if the server answers but cannot be used. An unreachable server is no error: it may come up
 * later.
 */
async function probeServer(store: RespStore, settings: ServerSettings): Promise<void> {
  try {
    const info = String(await store.ask(["INFO", "cluster"]));
    if (!settings.isCluster && info.includes("cluster_enabled:1")) {
      fail("cluster", "true: the server is a node of a cluster", false);
    }
  } catch (error) {
    if (!(error instanceof ReplyError)) {
      if (error instanceof ConfigError) throw error;
      return;
    }
    if (REFUSALS.includes(error.code) || /\bAUTH\b/.test(error.message)) {
      const expected = `a user name and a password that the server accepts (${error.code})`;
      fail("password", expected, settings.password === undefined ? "none" : "rejected credentials");
    }
    if (settings.isCluster && error.message.includes("cluster support disabled")) {
      fail("cluster", "false: the server belongs to no cluster", true);
    }
    if (error.message.includes("DB index")) {
      fail("db", "a database that the server has", settings.database);
    }
  }
}

/** The servers, and the settings that the URL contains. */
function targetOf(values: RespValues): ServerUrl {
  const { url, host, port } = values;
  if (url === undefined) {
    if (host === undefined) {
      return fail("host", "the name or address of a server, or url", "nothing");
    }
    return { servers: [{ host, port: port ?? 6379 }], isEncrypted: false };
  }
  if (host !== undefined) fail("host", "no value together with url", "a host");
  if (port !== undefined) fail("port", "no value together with url", port);
  const target = parseServerUrl(url) ?? fail("url", URL_SHAPE, "something else");
  if (target.isEncrypted && values.tls === false) {
    fail("tls", "true, or no value together with url", false);
  }
  if (target.database !== undefined && values.db !== undefined) {
    fail("db", "no value: the url has one", values.db);
  }
  for (const key of ["username", "password", "password_env"] as const) {
    const isInUrl = key === "username" ? target.username : target.password;
    if (isInUrl !== undefined && values[key]) {
      fail(key, "no value: the url has one", key === "password" ? "another" : values[key]);
    }
  }
  return target;
}

async function passwordOf(
  { password, password_env: name }: RespValues,
): Promise<string | undefined> {
  if (name === undefined) return password || undefined;
  if (password) return fail("password_env", "no value together with password", name);
  const { value, problem } = await readSecretVariable(name);
  return problem === undefined ? value : fail("password_env", problem, name);
}
