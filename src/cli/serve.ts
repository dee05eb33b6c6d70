import { configureSync, getTextFormatter, resetSync } from "@logtape/logtape";
import { ConfigError, failFor } from "../base/config_error.ts";
import { untilAborted } from "../base/abort.ts";
import { readSecretFile, readSecretVariable } from "../base/secrets.ts";
import { HostDevice } from "../memory/host_device.ts";
import { DEFAULT_PORT } from "../server/server_options.ts";
import { serveStatus } from "../server/status_server.ts";
import { TieredCache } from "../tiered_cache.ts";
import type { CliCommand, CommandArgs } from "./command.ts";
import type { CliHost } from "./host.ts";
import { l2Args, readL2Config } from "./l2_config.ts";
import { ADAPTER_PERMISSIONS, askFor, askForAdapter } from "./permissions.ts";

const fail = failFor("kvtier serve");

/** `kvtier serve`: the status server over adapters, without an engine. */
export const serveCommand: CliCommand = {
  description: "Serve a live page, health, status, metrics and events of adapters over HTTP",
  details: [
    "Opens the adapters like a cache without an engine: their limits apply, and the figures are those " +
    "of this process. In a program, serveStatus(cache) shows the cache of the engine.",
    "With a token, the page can also forget, set quotas, and add and remove adapters.",
  ],
  options: {
    ...l2Args,
    hostname: {
      type: "string",
      valueHint: "HOST",
      default: "127.0.0.1",
      description: "Host name or address to listen on; without a token only a loopback address",
    },
    port: {
      type: "string",
      valueHint: "PORT",
      default: String(DEFAULT_PORT),
      description: "Port to listen on; 0 for a free one",
    },
    "allowed-host": {
      type: "string",
      multiple: true,
      valueHint: "NAME",
      description: "Further host name by which clients address the server",
    },
    "token-file": {
      type: "string",
      valueHint: "FILE",
      description: "File with the token that requests must send, readable only by its owner",
    },
    "token-env": {
      type: "string",
      valueHint: "NAME",
      description: "Alternatively, the name of an environment variable with the token",
    },
  },
  permissions: ["--allow-net=HOST:PORT to listen", ...ADAPTER_PERMISSIONS],
  examples: [
    `serve --l2-adapter '{"type":"fs","base_path":"./kv-cache"}'`,
    "serve --l2-config l2.jsonc --hostname 0.0.0.0 --token-file ./token",
  ],
  run: async (args, { host, out }) => {
    const { hostname = "", port: portText = "" } = args.values;
    const port = /^\d+$/.test(portText) ? Number(portText) : NaN;
    if (!(port <= 65535)) fail("--port", "a port from 0 to 65535", portText);
    const l2 = await readL2Config(args.raw);
    const token = await readToken(args);
    await askFor({ name: "net", host: `${hostname}:${port}` });
    for (const config of l2) await askForAdapter(config);
    const { "adapters-dir": adaptersDir } = args.values;
    using _logs = logTo(host);
    await using cache = await TieredCache.open({
      device: new HostDevice(),
      l2,
      ...(adaptersDir === undefined ? {} : { adaptersDir }),
    });
    await using server = serveStatus(cache, {
      hostname,
      port,
      allowedHosts: args.lists["allowed-host"] ?? [],
      ...(token === undefined ? {} : { token }),
    });
    const { url } = server;
    out.json({ url });
    if (out.isJson) out.note(`Serving ${url}`);
    else out.print(`Serving ${url} until Ctrl-C`);
    await untilAborted(host.signal, server.finished, () => {});
  },
};

/** @throws {ConfigError} If the token cannot be read. */
async function readToken({ values }: CommandArgs): Promise<string | undefined> {
  const { "token-file": file, "token-env": variable } = values;
  if (file !== undefined && variable !== undefined) {
    fail("--token-env", "not to be combined with --token-file", variable);
  }
  if (file !== undefined) {
    const reading = await readSecretFile(file);
    if (reading.problem === undefined) return new TextDecoder().decode(reading.bytes).trim();
    return fail(
      "--token-file",
      "a file that only its owner can read",
      `${file} ${reading.problem}`,
    );
  }
  if (variable === undefined) return undefined;
  const { value, problem } = await readSecretVariable(variable);
  if (value !== undefined) return value;
  const expected = problem ?? "a variable";
  throw new ConfigError({
    subject: "kvtier serve",
    key: "--token-env",
    expected,
    received: variable,
    hidden: true,
  });
}

/** Writes the log to stderr. */
function logTo({ err }: CliHost): Disposable {
  const format = getTextFormatter({ timestamp: "time" });
  const encoder = new TextEncoder();
  configureSync({
    reset: true,
    sinks: { stderr: (record) => err(encoder.encode(format(record))) },
    loggers: [
      { category: "kvtier", sinks: ["stderr"], lowestLevel: "info" },
      { category: ["logtape", "meta"], lowestLevel: "error" },
    ],
  });
  return { [Symbol.dispose]: resetSync };
}
