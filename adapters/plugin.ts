/**
 * The `plugin` adapter: an adapter module named by the configuration.
 *
 * @module
 */
import {
  type AdapterEnvironment,
  AdapterError,
  asAdapterModule,
  type ConfigError,
  defineL2Adapter,
  type L2Adapter,
  type L2AdapterModule,
} from "../src/adapter/contract.ts";
import { type FailConfig, failFor } from "../src/base/config_error.ts";
import { wrapAdapter } from "../src/adapter/wrap_adapter.ts";
import { importNamed, MODULE_SPECIFIER, moduleAddress } from "../src/adapter/named_module.ts";
import { checkIntegrity, INTEGRITY } from "./_plugin/integrity.ts";
import { openIsolated } from "./_plugin/isolated_adapter.ts";
import { isolatedCommand } from "./_plugin/isolated_command.ts";

const config = {
  module: {
    type: "string",
    required: true,
    check: (name: string): string | undefined =>
      moduleAddress(name) === undefined ? MODULE_SPECIFIER : undefined,
    help:
      `Adapter module to import: ${MODULE_SPECIFIER}; a relative path starts at the working directory.`,
  },
  params: {
    type: "record",
    default: {},
    help: "Configuration of that adapter, which validates it.",
  },
  integrity: {
    type: "string",
    check: (hash: string): string | undefined =>
      INTEGRITY.test(hash) ? undefined : "sha256- and 44 base64 characters",
    help:
      "SHA-256 of the module's file, verified at start; does not cover what the module imports.",
  },
  isolate: {
    type: "boolean",
    default: false,
    help:
      "Run the module in a process of its own. If it loops, exits or uses too much memory, its adapter is dead, and the cache goes on.",
  },
  permissions: {
    type: "record",
    default: {},
    help:
      "With isolate: permissions of the process, as lists by name: read, write, net, env, sys, run, ffi, import; true for all.",
  },
  memory_limit_mb: {
    type: "number",
    minimum: 64,
    maximum: 2 ** 20,
    default: 512,
    help:
      "With isolate: max memory of the process in MiB. Outside Linux it covers the JavaScript heap only.",
  },
} as const;

/**
 * An adapter module named by the configuration. Without `isolate`, it runs with all permissions of
 * the process.
 *
 * Requires `--allow-read` permission for a module that is a file, and with `isolate` also
 * `--allow-run` permission.
 */
const plugin: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "plugin",
  summary: "An adapter module named by the configuration.",
  config,
  async create(values, environment) {
    const { module: name, params, integrity, isolate, permissions } = values;
    const subject = `plugin adapter (${name})`;
    const fail = failFor(subject);
    const address = moduleAddress(name) ?? fail("module", MODULE_SPECIFIER, name);
    const pinned = integrity === undefined
      ? address
      : await checkIntegrity(subject, address, integrity);
    const memoryMib = values["memory_limit_mb"];
    const how = isolate
      ? await isolatedCommand({ address: pinned, permissions, memoryMib }, fail)
      : await importModule(pinned, fail);
    try {
      const { adapter, type } = how instanceof Deno.Command
        ? await openIsolated({ command: how, params, subject, environment })
        : { adapter: await openInPlace(how, params, environment, fail), type: how.type };
      return wrapAdapter(adapter, {
        reportStatus: () => ({ ...adapter.reportStatus?.(), plugin: { module: name, type } }),
      });
    } catch (cause) {
      if (!isConfigError(cause)) {
        throw new AdapterError({ adapter: `plugin (${name})`, operation: "open", cause });
      }
      const { key, expected, received } = cause;
      const place = key === undefined ? "params" : `params.${key}`;
      return fail(key === "create()" ? "module" : place, expected, received, cause);
    }
  },
});
export default plugin;

async function importModule(address: string, fail: FailConfig): Promise<L2AdapterModule> {
  try {
    return asAdapterModule((await importNamed(address)).default);
  } catch (cause) {
    return fail("module", "a usable adapter module", describeCause(cause), cause);
  }
}

async function openInPlace(
  module: L2AdapterModule,
  params: Readonly<Record<string, unknown>>,
  { open }: AdapterEnvironment,
  fail: FailConfig,
): Promise<L2Adapter> {
  if (open === undefined) return fail("create()", "a cache that opens it", "none");
  return await open({ ...params, type: module.type }, module);
}

/** Also accepts an error of another copy of this package, which the module may use. */
function isConfigError(cause: unknown): cause is ConfigError {
  return cause instanceof Error && cause.name === "ConfigError";
}

function describeCause(cause: unknown): string {
  return cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
}
