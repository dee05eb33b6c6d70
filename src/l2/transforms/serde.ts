import type { L2Adapter } from "../../adapter/contract.ts";
import { acceptsShortObjects } from "../adapter_answers.ts";
import { type ConfigValues, parseAdapterConfig } from "../../adapter/config.ts";
import { ConfigError, failFor, receivedType } from "../../base/config_error.ts";
import { aesGcm } from "./aes_gcm.ts";
import type { Transform, TransformModule } from "./transform.ts";
import { TransformChain } from "./transform_chain.ts";
import type { TransformOptions } from "./transformed_objects.ts";
import { transformAdapter } from "./transformed_adapter.ts";
import { zstd } from "./zstd.ts";

const modules: ReadonlyMap<string, TransformModule> = new Map<string, TransformModule>([
  [aesGcm.type, aesGcm as unknown as TransformModule],
  [zstd.type, zstd as unknown as TransformModule],
]);

/** A transform module with its validated configuration. */
export interface CheckedTransform {
  readonly module: TransformModule;
  readonly values: ConfigValues<TransformModule["config"]>;
}

/**
 * Validates the configuration of one transform, or of several in the order in which they are
 * applied before storing.
 *
 * @param type Type of the adapter.
 * @throws {ConfigError} If it is not valid.
 */
export function parseSerde(type: string, serde: unknown): CheckedTransform[] {
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
 * Creates transforms.
 *
 * @throws {ConfigError} If a transform cannot be used as configured.
 */
export async function openChain(
  type: string,
  serde: readonly CheckedTransform[],
): Promise<TransformChain> {
  using cleanup = new DisposableStack();
  const transforms: Transform[] = [];
  for (const { module, values } of serde) {
    const fail = failFor(`${type} adapter: ${module.type}`);
    transforms.push(cleanup.use(await module.create(values, fail)));
  }
  cleanup.move();
  return new TransformChain(transforms, serde.map(({ module }) => module.type));
}

/**
 * Wraps an adapter so that it stores transformed objects, and closes it if it cannot.
 *
 * @throws {ConfigError} If it cannot.
 */
export async function transformed(
  adapter: L2Adapter,
  options: TransformOptions,
): Promise<L2Adapter> {
  const { type, chain } = options;
  const expected = incompatibility(adapter, chain);
  if (expected === undefined) return transformAdapter(adapter, options);
  await adapter[Symbol.asyncDispose]();
  const received = chain.names.join(", ");
  throw new ConfigError({ subject: `${type} adapter`, key: "serde", expected, received });
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
