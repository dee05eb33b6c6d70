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

type Outcome = LoadedSource | FailedSource;

/**
 * Resolves adapter types to modules. A module that cannot be imported affects only its own type.
 */
export class AdapterRegistry {
  readonly #builtIn: readonly AdapterSource[];
  readonly #custom: readonly AdapterSource[];
  readonly #outcomes = new Map<AdapterSource, Promise<Outcome>>();

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
    const outcomes = await Promise.all(candidates.map((source) => this.#load(source)));
    const matches = outcomes.filter(isLoaded).filter(({ module }) => module.type === type);
    if (matches.length > 1) {
      throw new ConfigError({
        subject: `Adapter type "${type}"`,
        expected: "one module",
        received: matches.map(({ origin }) => origin).join(", "),
      });
    }
    const failed = outcomes.filter(isFailed);
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
    for (const { module } of outcomes.filter(isLoaded)) known.add(module.type);
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
  async list(): Promise<{ loaded: LoadedSource[]; failed: FailedSource[] }> {
    const sources = [...this.#builtIn, ...this.#custom];
    const outcomes = await Promise.all(sources.map((source) => this.#load(source)));
    return { loaded: outcomes.filter(isLoaded), failed: outcomes.filter(isFailed) };
  }

  #load(source: AdapterSource): Promise<Outcome> {
    let outcome = this.#outcomes.get(source);
    if (outcome === undefined) {
      outcome = load(source);
      this.#outcomes.set(source, outcome);
    }
    return outcome;
  }
}

async function load(source: AdapterSource): Promise<Outcome> {
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

function isLoaded(outcome: Outcome): outcome is LoadedSource {
  return "module" in outcome;
}

function isFailed(outcome: Outcome): outcome is FailedSource {
  return "reason" in outcome;
}

function describeReason(reason: unknown): string {
  return reason instanceof Error ? `${reason.name}: ${reason.message}` : String(reason);
}
