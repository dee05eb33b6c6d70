import { asAdapterModule, type L2AdapterModule } from "../adapter/contract.ts";
import type { AdapterSource } from "./adapter_discovery.ts";
import { nearestName } from "../base/options.ts";
import { ConfigError, receivedType } from "../base/config_error.ts";
import { lmcacheTypes } from "./lmcache_types.ts";

/** Sources of an {@linkcode AdapterRegistry}. */
export interface AdapterRegistryOptions {
  /**
   * Built-in modules: each file is named after its type and imported only when that type is
   * requested.
   */
  readonly builtIn: readonly AdapterSource[];
  /** Custom modules: all are imported, since only a module itself declares its type. */
  readonly custom?: readonly AdapterSource[];
}

/** A source that could not be loaded. */
export interface FailedSource {
  readonly origin: string;
  /** File name without extension. */
  readonly name: string;
  readonly reason: unknown;
}

/** A loaded module and its origin. */
export interface LoadedSource {
  readonly origin: string;
  /** Default export of the module. */
  readonly module: L2AdapterModule;
}

/** All sources of a list, by outcome. */
interface Outcomes {
  readonly loaded: readonly LoadedSource[];
  readonly failed: readonly FailedSource[];
}

/**
 * Resolves adapter types to modules. A module that cannot be imported affects only its own type.
 */
export class AdapterRegistry {
  readonly #builtIn: readonly AdapterSource[];
  readonly #custom: readonly AdapterSource[];
  readonly #outcomes = new Map<AdapterSource, Promise<LoadedSource | FailedSource>>();

  /** Creates a registry; modules are imported on demand. */
  constructor(options: AdapterRegistryOptions) {
    this.#builtIn = options.builtIn;
    this.#custom = options.custom ?? [];
  }

  /**
   * Resolves the module of a type.
   *
   * @throws {ConfigError} If no module has that type, naming the known types and the modules that
   * could not be imported; if two modules have it, naming both; or if the module of that name is
   * broken.
   */
  async resolve(type: string): Promise<L2AdapterModule> {
    const candidates = [...this.#builtIn.filter(({ name }) => name === type), ...this.#custom];
    const { loaded, failed } = await this.#loadAll(candidates);
    const matches = loaded.filter(({ module }) => module.type === type);
    if (matches.length > 1) {
      throw new ConfigError({
        subject: `Adapter type "${type}"`,
        expected: "one module",
        received: matches.map(({ origin }) => origin).join(", "),
      });
    }
    const [match] = matches;
    if (match !== undefined) return match.module;
    const broken = failed.find(({ name }) => name === type);
    if (broken !== undefined) {
      throw new ConfigError({
        subject: `Adapter type "${type}"`,
        expected: `a usable module in ${broken.origin}`,
        received: describeReason(broken.reason),
        cause: broken.reason,
      });
    }
    const known = new Set(this.#builtIn.map(({ name }) => name));
    for (const { module } of loaded) known.add(module.type);
    const notes = failed.map(({ origin, reason }) => `  ${origin}: ${describeReason(reason)}`);
    const instead = lmcacheTypes.get(type);
    const help = [
      ...instead === undefined ? [] : [`Instead of LMCache's ${type}, use ${instead}.`],
      ...notes.length === 0 ? [] : [`These modules could not be used:\n${notes.join("\n")}`],
    ].join("\n");
    const names = [...known].sort();
    const nearest = nearestName(type, names);
    throw new ConfigError({
      subject: "Adapter type",
      expected: `one of ${names.join(", ")}${nearest === undefined ? "" : `, perhaps ${nearest}`}`,
      ...receivedType(type),
      ...(help === "" ? {} : { help }),
    });
  }

  /** Imports all modules, for listings. */
  async list(): Promise<Outcomes> {
    return await this.#loadAll([...this.#builtIn, ...this.#custom]);
  }

  async #loadAll(sources: readonly AdapterSource[]): Promise<Outcomes> {
    const loaded: LoadedSource[] = [];
    const failed: FailedSource[] = [];
    for (const outcome of await Promise.all(sources.map((source) => this.#load(source)))) {
      if ("module" in outcome) loaded.push(outcome);
      else failed.push(outcome);
    }
    return { loaded, failed };
  }

  #load(source: AdapterSource): Promise<LoadedSource | FailedSource> {
    let outcome = this.#outcomes.get(source);
    if (outcome === undefined) this.#outcomes.set(source, outcome = load(source));
    return outcome;
  }
}

async function load(source: AdapterSource): Promise<LoadedSource | FailedSource> {
  const { name, origin } = source;
  try {
    const namespace = await source.load();
    const module = asAdapterModule(isObject(namespace) ? namespace.default : undefined);
    return { origin, module };
  } catch (reason) {
    return { origin, name, reason };
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function describeReason(reason: unknown): string {
  return reason instanceof Error ? `${reason.name}: ${reason.message}` : String(reason);
}
