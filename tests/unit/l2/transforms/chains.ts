import {
  type AdapterObject,
  concatParts,
  type L2AdapterModule,
} from "../../../../src/adapter/contract.ts";
import { AdapterGuard } from "../../../../src/l2/adapter_guard.ts";
import { DEFAULT_ADAPTER_TIMEOUTS } from "../../../../src/l2/adapter_status.ts";
import type { AdapterError } from "../../../../src/adapter/errors.ts";
import { AesGcmTransform } from "../../../../src/l2/transforms/aes_gcm.ts";
import { MasterKey } from "../../../../src/l2/transforms/master_key.ts";
import type { Transform } from "../../../../src/l2/transforms/transform.ts";
import { TransformChain } from "../../../../src/l2/transforms/transform_chain.ts";
import { zstd } from "../../../../src/l2/transforms/zstd.ts";
import type { RandomSource } from "../../../../src/base/random.ts";
import { checkConfig } from "../../../../src/l2/adapter_config.ts";
import { openAdapter } from "../../../../src/l2/open_adapter.ts";
import { AdapterRegistry } from "../../../../src/l2/adapter_registry.ts";
import { systemClock } from "../../../../src/base/clock.ts";
import { testEnvironment } from "../../../support/adapters.ts";

/** A master key of one repeated byte, as hex. */
export function masterKeyHex(byte: number): string {
  return new Uint8Array(32).fill(byte).toHex();
}

/** Encryption under the master key of {@linkcode masterKeyHex}. */
export async function aesTransform(byte = 1, random?: RandomSource): Promise<AesGcmTransform> {
  return new AesGcmTransform(await MasterKey.import(new Uint8Array(32).fill(byte)), random);
}

/** Compression in one thread. */
export function zstdTransform(level = 1): Promise<Transform> {
  return zstd.create({ level, threads: 1 }, (key) => {
    throw new Error(`${key} was refused`);
  });
}

/** The tested chains; each is released by its user. */
export const chainMakers: Readonly<Record<string, () => Promise<TransformChain>>> = {
  "aesgcm": async () => new TransformChain([await aesTransform()]),
  "zstd": async () => new TransformChain([await zstdTransform()]),
  "zstd, aesgcm": async () => new TransformChain([await zstdTransform(), await aesTransform()]),
  "aesgcm, zstd": async () => new TransformChain([await aesTransform(), await zstdTransform()]),
};

/** Stored bytes of an object, in one piece. */
export async function encoded(
  chain: TransformChain,
  object: AdapterObject,
): Promise<Uint8Array<ArrayBuffer>> {
  return concatParts((await chain.encode(object)).parts);
}

/** A buffer for an encoded object, with these bytes at its front. */
export function roomWith(
  chain: TransformChain,
  { key, byteLength }: AdapterObject,
  bytes: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const room = new Uint8Array(Math.max(byteLength + chain.addedBytes(key), bytes.byteLength));
  room.set(bytes);
  return chain.isFixed ? room.slice(0, bytes.byteLength) : room;
}

/** A guarded adapter, and what it reported. */
export interface OpenGuard extends AsyncDisposable {
  readonly guard: AdapterGuard;
  readonly errors: readonly AdapterError[];
}

/** Opens an adapter as a cache does, with `serde` if it is given. */
export async function openGuard(
  module: L2AdapterModule,
  config: Readonly<Record<string, unknown>>,
  serde?: unknown,
): Promise<OpenGuard> {
  const source = {
    name: module.type,
    origin: "test",
    load: () => Promise.resolve({ default: module }),
  };
  const registry = new AdapterRegistry({ builtIn: [source] });
  const checked = await checkConfig(registry, {
    type: module.type,
    ...config,
    ...(serde === undefined ? {} : { serde }),
  });
  const errors: AdapterError[] = [];
  const { adapter } = await openAdapter(checked, {
    registry,
    ...testEnvironment({ onError: (error) => errors.push(error) }),
  });
  const guard = new AdapterGuard(adapter, {
    id: 0,
    type: module.type,
    clock: systemClock,
    timeouts: DEFAULT_ADAPTER_TIMEOUTS,
  });
  return { guard, errors, [Symbol.asyncDispose]: () => guard.close() };
}

/** Status of the transforms of a guarded adapter. */
export function serdeStatus(guard: AdapterGuard): Readonly<Record<string, unknown>> {
  return guard.reportStatus().details.serde as Readonly<Record<string, unknown>>;
}
