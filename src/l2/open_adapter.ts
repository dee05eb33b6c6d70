import { untilAborted } from "../base/abort.ts";
import { abortAfter, type Clock, systemClock } from "../base/clock.ts";
import { ConfigError } from "../base/config_error.ts";
import type { AdapterEnvironment, L1MemoryDescription, L2Adapter } from "../adapter/contract.ts";
import { AdapterError } from "../adapter/errors.ts";
import { checkConfig, type CheckedConfig, checkValues } from "./adapter_config.ts";
import { AdapterGuard } from "./adapter_guard.ts";
import type { AdapterRegistry } from "./adapter_registry.ts";
import { type AdapterTimeouts, DEFAULT_ADAPTER_TIMEOUTS } from "./adapter_status.ts";
import type { BreakerOptions } from "./circuit_breaker.ts";
import type { AdapterEviction } from "./eviction_config.ts";
import { openChain, transformed } from "./transforms/serde.ts";

/** Deadline for opening an adapter, in milliseconds. */
const OPEN_MS = 30_000;
const MEMBERS = ["store", "lookupAndLock", "load", Symbol.asyncDispose] as const;

/** What an adapter is opened with. */
export interface AdapterHost extends Omit<AdapterEnvironment, "open"> {
  /** Types that the adapter can wrap. */
  readonly registry: AdapterRegistry;
}

/** An open adapter. */
export interface OpenedAdapter {
  readonly adapter: L2Adapter;
  /** Limits to enforce on it: its own, or else those of an adapter that it wraps. */
  readonly eviction: AdapterEviction | undefined;
}

/**
 * Opens an adapter, with its transforms and with those that it wraps.
 *
 * @throws {ConfigError} If the configuration is not valid, or `create` returns something else.
 */
export async function openAdapter(
  checked: CheckedConfig,
  host: AdapterHost,
): Promise<OpenedAdapter> {
  const { module, values, serde } = checked;
  const { registry, ...environment } = host;
  let { eviction } = checked;
  using cleanup = new DisposableStack();
  const chain = serde && cleanup.use(await openChain(module.type, serde));
  const made = await module.create(values, {
    ...environment,
    open: async (config, module) => {
      const inner = module ? checkValues(module, config) : await checkConfig(registry, config);
      const opened = await openAdapter(inner, host);
      eviction ??= opened.eviction;
      return opened.adapter;
    },
  });
  await checkMembers(module.type, made);
  const adapter = chain ? await transformed(made, { ...host, type: module.type, chain }) : made;
  cleanup.move();
  return { adapter, eviction };
}

/** Rejects the result of a `create` unless it is an adapter. */
async function checkMembers(type: string, made: L2Adapter | undefined): Promise<void> {
  const missing = MEMBERS.filter((name) => typeof made?.[name] !== "function").map(String);
  if (typeof made?.capabilities !== "object") missing.unshift("capabilities");
  if (missing.length === 0) return;
  await made?.[Symbol.asyncDispose]?.();
  throw new ConfigError({
    subject: `${type} adapter`,
    key: "create()",
    expected: "an adapter as its result",
    received: `one without ${missing.join(", ")}`,
  });
}

/** Options of {@linkcode openGuarded}; what is left out suits a program without a cache. */
export interface OpenGuardedOptions {
  readonly registry: AdapterRegistry;
  /** @default {0} */
  readonly id?: number;
  readonly clock?: Clock;
  readonly timeouts?: AdapterTimeouts;
  readonly breaker?: Partial<BreakerOptions>;
  readonly l1Memory?: L1MemoryDescription;
  /** Aborts when the adapter has to stop its work. */
  readonly signal?: AbortSignal;
  /** Aborts opening. */
  readonly stop?: AbortSignal;
}

/** A guarded adapter; disposing of it closes the guard. */
export interface GuardedAdapter extends AsyncDisposable {
  readonly guard: AdapterGuard;
  /** Limits to enforce on it. */
  readonly eviction: AdapterEviction | undefined;
}

/**
 * Opens an adapter and wraps it in a guard, which gets what the adapter reports.
 *
 * @throws {ConfigError} If the configuration is not valid.
 * @throws {AdapterError} If the adapter does not open in time.
 */
export async function openGuarded(
  checked: CheckedConfig,
  options: OpenGuardedOptions,
): Promise<GuardedAdapter> {
  const {
    registry,
    id = 0,
    clock = systemClock,
    timeouts = DEFAULT_ADAPTER_TIMEOUTS,
    breaker = {},
    l1Memory = { type: "host", maxObjectBytes: 2 ** 31, alignmentBytes: 256 },
    signal = new AbortController().signal,
    stop = signal,
  } = options;
  const { type } = checked.module;
  const early: AdapterError[] = [];
  const made: { guard?: AdapterGuard } = {};
  const opening = openAdapter(checked, {
    registry,
    clock,
    signal,
    l1Memory,
    onError: (error) => made.guard ? made.guard.reportError(error) : void early.push(error),
    // Nothing has counted objects that are evicted during opening.
    onEvicted: (keys) => made.guard?.reportEvicted(keys),
  });
  const message = `Not open within ${OPEN_MS} ms`;
  using timeout = abortAfter(clock, OPEN_MS, new DOMException(message, "TimeoutError"));
  const ended = AbortSignal.any([timeout.signal, stop]);
  try {
    const { adapter, eviction } = await untilAborted(ended, opening);
    const guard = new AdapterGuard(adapter, { id, type, clock, timeouts, breaker });
    made.guard = guard;
    for (const error of early) guard.reportError(error);
    return { guard, eviction, [Symbol.asyncDispose]: () => guard.close() };
  } catch (cause) {
    // An adapter that opens after the deadline has no owner, so it is closed here.
    opening.then(({ adapter }) => adapter[Symbol.asyncDispose]()).catch(() => {});
    if (cause !== ended.reason) throw cause;
    throw new AdapterError({ adapter: type, operation: "open", cause });
  }
}
