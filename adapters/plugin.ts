/**
 * The `plugin` adapter: an adapter module named by the configuration.
 *
 * @module
 */
import {
  AdapterError,
  asAdapterModule,
  type ConfigError,
  defineL2Adapter,
  type L2AdapterModule,
} from "../src/adapter/contract.ts";
import { failFor } from "../src/base/config_error.ts";
import { wrapAdapter } from "../src/adapter/wrap_adapter.ts";
import { importNamed, MODULE_SPECIFIER, moduleAddress } from "../src/adapter/named_module.ts";
import { checkIntegrity, INTEGRITY } from "./_plugin/integrity.ts";

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
} as const;

/**
 * An adapter module named by the configuration. It runs with all permissions of the process.
 *
 * Requires `--allow-read` permission for a module that is a file.
 */
const plugin: L2AdapterModule<typeof config> = defineL2Adapter({
  type: "plugin",
  summary: "An adapter module named by the configuration.",
  config,
  async create({ module: name, params, integrity }, { open }) {
    const subject = `plugin adapter (${name})`;
    const fail = failFor(subject);
    const address = moduleAddress(name) ?? fail("module", MODULE_SPECIFIER, name);
    const pinned = integrity === undefined
      ? address
      : await checkIntegrity(subject, address, integrity);
    const inner = await importNamed(pinned).then(({ default: exported }) =>
      asAdapterModule(exported)
    ).catch((cause) => fail("module", "a usable adapter module", describeCause(cause), cause));
    if (open === undefined) return fail("module", "a cache that opens it", "none");
    try {
      const adapter = await open({ ...params, type: inner.type }, inner);
      return wrapAdapter(adapter, {
        reportStatus: () => ({
          ...adapter.reportStatus?.(),
          plugin: { module: name, type: inner.type },
        }),
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

/** Also accepts an error of another copy of this package, which the module may use. */
function isConfigError(cause: unknown): cause is ConfigError {
  return cause instanceof Error && cause.name === "ConfigError";
}

function describeCause(cause: unknown): string {
  return cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
}
