import type { ObjectKey } from "../../src/keys/object_key.ts";
import { AdapterError, ConfigError } from "../../src/adapter/contract.ts";
import type { TieredCache } from "../../src/tiered_cache.ts";
import type { ForgetReport, ForgetSelector } from "../../src/lifecycle/key_lifecycle.ts";
import { SALTS, type SimChats } from "./sim_chats.ts";
import { MODELS } from "./sim_content.ts";
import { configOf } from "./sim_kinds.ts";
import type { SimRandom } from "./sim_random.ts";
import { checkStatus } from "./sim_status.ts";
import type { Life, SimWorld } from "./sim_world.ts";

const KIB = 1024;
const SECOND = 1000;
const MINUTE = 60 * SECOND;

type RemovalMode = "drain" | "migrate" | "drop";

/** Operations that administrators perform on a cache in use. */
export class SimTroubles {
  readonly #world: SimWorld;
  readonly #chats: SimChats;

  constructor(world: SimWorld, chats: SimChats) {
    this.#world = world;
    this.#chats = chats;
  }

  /** Performs one operation. */
  async make(random: SimRandom): Promise<void> {
    const what = random.weighted({
      clearL1: 3,
      forgetSalt: 2,
      forgetModel: 1,
      forgetKeys: 3,
      quota: 3,
      ttl: 3,
      pin: 2,
      unpin: 2,
      lose: 2,
      add: 2,
      remove: 2,
      restart: 1,
      flush: 2,
      status: 3,
    });
    const life = await this.#world.current();
    const { cache } = life;
    this.#world.trace.note(what);
    switch (what) {
      case "clearL1":
        return cache.clearL1();
      case "forgetSalt":
        return await this.#forget(life, { salt: random.pick(SALTS) });
      case "forgetModel":
        return await this.#forget(life, { model: random.pick(MODELS).name });
      case "forgetKeys":
        return await this.#forget(life, { keys: this.#chats.someKeys(random) });
      case "quota":
        return setQuota(cache, random);
      case "ttl":
        return this.#ttl(cache, random);
      case "pin":
        return this.#pin(cache, this.#chats.someKeys(random));
      case "unpin":
        return this.unpin(life, [...this.#world.pinned.values()].filter(() => random.chance(0.5)));
      case "lose":
        return await this.#loseDevice(life, random);
      case "add":
        return await this.addAdapter(life, random);
      case "remove":
        return await this.#removeAdapter(life, random);
      case "restart":
        return await this.#restart(life);
      case "flush":
        return await this.#world.guarded(life, () => cache.flush());
      case "status":
        return checkStatus(cache.reportStatus());
    }
  }

  /** Unpins keys. */
  unpin({ cache }: Life, keys: readonly ObjectKey[]): void {
    for (const { id } of keys) this.#world.pinned.delete(id);
    cache.unpin(keys);
  }

  /** Attaches a new device to a cache that has lost its own. */
  async attachDevice(life: Life): Promise<void> {
    if (life.isClosing || !life.device.isLost) return;
    const before = life.device;
    life.device = this.#world.newDevice();
    await this.#world.guarded(life, () => life.cache.attachDevice(life.device));
    if (before.slabCount > 0) this.#world.fail("slabs of a lost device are left");
  }

  /** Adds an adapter that is not in use, with the content of its store or empty. */
  async addAdapter(life: Life, random: SimRandom): Promise<void> {
    const free = this.#world.stores.filter((store) => !life.adapters.has(store));
    if (free.length === 0 || life.isClosing) return;
    const store = random.pick(free);
    if (random.chance(0.3)) store.held.clear();
    await this.#world.guarded(life, async () => {
      const id = await life.cache.addAdapter(configOf(store));
      if (!life.isClosing) this.#world.fleet.set(id, store);
    });
  }

  /** Removes an adapter; returns whether it is gone or its removal is impossible. */
  async remove(life: Life, id: number, mode: RemovalMode, timeoutMs: number): Promise<boolean> {
    const { fleet, trace } = this.#world;
    const store = fleet.get(id);
    if (store === undefined || life.isClosing) return true;
    if (mode === "migrate") this.#world.migrations++;
    try {
      const report = await life.cache.removeAdapter(id, { mode, timeoutMs });
      trace.note(`removed ${mode}`, `${id} ${JSON.stringify(report)}`);
    } catch (error) {
      trace.note("not removed", `${id} ${error instanceof Error ? error.message : error}`);
      const isExpected = error instanceof AdapterError || error instanceof ConfigError ||
        error instanceof RangeError || life.isClosing;
      if (!isExpected) this.#world.fail("removeAdapter() was rejected", error);
      return !(error instanceof AdapterError);
    } finally {
      // An aborted migration ends with its current batch.
      if (mode === "migrate") {
        this.#world.clock.schedule(() => this.#world.migrations--, 2 * MINUTE);
      }
    }
    life.adapters.delete(store);
    if (!life.isClosing) fleet.delete(id);
    return true;
  }

  async #forget(life: Life, selector: ForgetSelector): Promise<void> {
    const { oracle, fleet, trace } = this.#world;
    const { pinned, mortal } = this.#world;
    const test = testOf(selector);
    const named = oracle.keys(test);
    // Objects can be pinned or given a time to live before they are put.
    for (const key of pinned.values()) if (test(key)) pinned.delete(key.id);
    for (const key of mortal.values()) if (test(key)) this.#world.endLife(key.id);
    const turn = oracle.forget(named);
    const stores = new Map(fleet);
    let report: ForgetReport | undefined;
    await this.#world.guarded(life, async () => report = await life.cache.forget(selector));
    trace.note("forgotten", JSON.stringify(report));
    if (report === undefined || life.isClosing) {
      for (const store of this.#world.stores) this.#world.excuse(life, store);
      return;
    }
    for (const { id, type, complete, problem } of report.adapters) {
      if (complete !== (problem === undefined)) this.#world.fail(`${type} has a problem, or none`);
      const store = stores.get(id) ?? fleet.get(id);
      if (store === undefined) continue;
      // A hanging store may still complete, and objects that cannot be listed are unknown.
      if (!complete) oracle.excuse(named);
      const left = named.filter((key) =>
        store.has(key) && !store.denied.has(key.id) && oracle.isForgottenSince(key, turn)
      );
      if (left.length > 0) this.#world.fail(`${type} holds forgotten objects: ${left[0]?.id}`);
    }
  }

  #ttl(cache: TieredCache, random: SimRandom): void {
    const keys = this.#chats.someKeys(random);
    const ms = random.chance(0.2) ? null : random.magnitude(10, 60 * MINUTE);
    cache.ttl(keys, ms);
    for (const key of keys) {
      if (ms === null) this.#world.endLife(key.id);
      else this.#world.expectExpiry(key, ms);
    }
  }

  #pin(cache: TieredCache, keys: readonly ObjectKey[]): void {
    cache.pin(keys);
    for (const key of keys) this.#world.pinned.set(key.id, key);
  }

  async #loseDevice(life: Life, random: SimRandom): Promise<void> {
    if (life.device.isLost || life.isClosing) return;
    life.device.lose();
    const waitMs = random.chance(0.5) ? random.below(3) : random.exponential(10 * SECOND);
    await this.#world.clock.sleep(waitMs);
    await this.attachDevice(life);
  }

  async #removeAdapter(life: Life, random: SimRandom): Promise<void> {
    const ids = [...this.#world.fleet.keys()];
    if (ids.length < 2 || life.isClosing) return;
    const id = random.pick(ids);
    const mode = random.weighted<RemovalMode>({ drain: 2, migrate: 2, drop: 1 });
    let timeoutMs = random.magnitude(SECOND, MINUTE);
    while (!await this.remove(life, id, timeoutMs > 5 * MINUTE ? "drop" : mode, timeoutMs)) {
      await this.#world.clock.sleep(random.exponential(MINUTE));
      timeoutMs *= 3;
    }
  }

  /** Closes the cache and opens another one on the same stores. */
  async #restart(life: Life): Promise<void> {
    if (life.isClosing) return;
    await this.#world.close(life);
    await this.#world.open([...this.#world.fleet.values()]);
  }
}

function testOf(selector: ForgetSelector): (key: ObjectKey) => boolean {
  if ("salt" in selector) return ({ cacheSalt }) => cacheSalt === selector.salt;
  if ("model" in selector) return ({ model }) => model === selector.model;
  const ids = new Set(selector.keys.map(({ id }) => id));
  return ({ id }) => ids.has(id);
}

function setQuota({ quota }: TieredCache, random: SimRandom): void {
  const bytes = (): number => Math.floor(random.magnitude(4 * KIB, 500 * KIB));
  const limits = {
    ...(random.chance(0.7) ? { l1Bytes: bytes() } : {}),
    ...(random.chance(0.5) ? { l2Bytes: bytes() } : {}),
  };
  if (random.chance(0.2)) quota.setDefault(random.chance(0.5) ? {} : limits);
  else if (random.chance(0.4)) quota.delete(random.pick(SALTS));
  else quota.set(random.pick(SALTS), limits);
}
