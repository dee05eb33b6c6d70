import type { L2Adapter, L2AdapterModule } from "../../adapter/contract.ts";
import { acceptsShortObjects } from "../adapter_answers.ts";
import { type ConfigValues, parseAdapterConfig } from "../../adapter/config.ts";
import { ConfigError, failFor, receivedType } from "../../base/config_error.ts";
import { aesGcm } from "./aes_gcm.ts";
import type { Transform, TransformModule } from "./transform.ts";
import { TransformChain } from "./transform_chain.ts";
import { transformAdapter } from "./transformed_adapter.ts";
import { zstd } from "./zstd.ts";

const modules: ReadonlyMap<string, TransformModule> = new Map<string, TransformModule>([
  [aesGcm.type, aesGcm as unknown as TransformModule],
  [zstd.type, zstd as unknown as TransformModule],
]);

/** A transform module with its validated configuration. */
interface CheckedTransform {
  readonly module: TransformModule;
  readonly values: ConfigValues<TransformModule["config"]>;
}

/**
 * Wraps an adapter module so that its adapters store transformed objects.
 *
 * @param module Module of the adapters.
 * @param serde Configuration of one transform, or of several in the order in which they are applied
 * before storing.
 * @throws {ConfigError} If the configuration is not valid. Errors that only show when an adapter is
 * created are thrown then.
 */
export function transformedModule(module: L2AdapterModule, serde: unknown): L2AdapterModule {
  const { type, summary, config } = module;
  const checked = checkSerde(type, serde);
  const names = checked.map((each) => each.module.type);
  return {
    type,
    summary,
    config,
    async create(values, environment) {
      using cleanup = new DisposableStack();
      const transforms: Transform[] = [];
      for (const { module, values } of checked) {
        const fail = failFor(`${type} adapter: ${module.type}`);
        const transform = await module.create(values, fail);
        transforms.push(cleanup.use(transform));
      }
      const chain = new TransformChain(transforms);
      const adapter = await module.create(values, environment);
      const expected = incompatibility(adapter, chain);
      if (expected !== undefined) {
        await adapter[Symbol.asyncDispose]();
        const received = names.join(", ");
        throw new ConfigError({ subject: `${type} adapter`, key: "serde", expected, received });
      }
      cleanup.move();
      return transformAdapter(adapter, { type, chain, names, onError: environment.onError });
    },
  };
}

function checkSerde(type: string, serde: unknown): CheckedTransform[] {
  const adapter = `${type} adapter`;
  const known = [...modules.keys()].join(", ");
  const given: readonly unknown[] = Array.isArray(serde) ? serde : [serde];
  const checked = given.map((one): CheckedTransform => {
    const config = typeof one === "object" && one !== null ? { ...one } : {};
    const name: unknown = "type" in config ? config.type : undefined;
    const module = typeof name === "string" ? modules.get(name) : undefined;
    if (module === undefined) {
      const expected = `an object, or an array of objects, with a type: ${known}`;
      const received = name === undefined ? { received: one, hidden: true } : receivedType(name);
      throw new ConfigError({ subject: adapter, key: "serde", expected, ...received });
    }
    return { module, values: parseAdapterConfig(module, config, `${adapter}: ${module.type}`) };
  });
  const names = checked.map(({ module }) => module.type);
  if (names.length === 0 || new Set(names).size < names.length) {
    const expected = `at least one of ${known}, each at most once`;
    throw new ConfigError({ subject: adapter, key: "serde", expected, received: names.join(", ") });
  }
  return checked;
}

/**
 * What is expected instead, if an adapter cannot store transformed objects; otherwise `undefined`.
 */
function incompatibility(
  { capabilities }: L2Adapter,
  { isFixed }: TransformChain,
): string | undefined {
  if (capabilities.unsealed) {
    return "no transforms, because this adapter stores objects in a format that others read and write";
  }
  if (isFixed || acceptsShortObjects(capabilities)) return undefined;
  return "transforms that keep the length (aesgcm), because as it is configured this adapter " +
    "cannot load objects of unknown length";
}
