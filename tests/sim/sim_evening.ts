import type { ObjectKey } from "../../src/keys/object_key.ts";
import type { StagedObject } from "../../src/l1/l1_cache.ts";
import type { KeyGroup } from "../../src/prefetch/key_group.ts";
import type { SimChats } from "./sim_chats.ts";
import { contentOf, MODELS, rowsOf, type SimModel } from "./sim_content.ts";
import { SimHit } from "./sim_hit.ts";
import { COOL_DOWN_MS } from "./sim_kinds.ts";
import type { SimRandom } from "./sim_random.ts";
import { checkStatus } from "./sim_status.ts";
import type { SimTroubles } from "./sim_troubles.ts";
import type { Life, SimWorld } from "./sim_world.ts";

const SECOND = 1000;
const CROWD = 16;
/** Model whose objects every adapter accepts. */
const MODEL = MODELS[1] as SimModel;

/** End of a day: the adapters work again, and the cache has to recover without help. */
export class SimEvening {
  readonly #world: SimWorld;
  readonly #chats: SimChats;
  readonly #troubles: SimTroubles;
  readonly #random: SimRandom;

  constructor(world: SimWorld, chats: SimChats, troubles: SimTroubles, random: SimRandom) {
    this.#world = world;
    this.#chats = chats;
    this.#troubles = troubles;
    this.#random = random;
  }

  /** Ends all faults, checks everything, and closes the cache. */
  async spend(): Promise<void> {
    const life = await this.#world.current();
    const { clock, fleet } = this.#world;
    const { cache } = life;
    await this.#endTroubles(life);
    await clock.sleep(COOL_DOWN_MS);
    for (const { id, state } of cache.listAdapters()) {
      if (state !== "active") await this.#troubles.remove(life, id, "drop", 60 * SECOND);
    }
    while (fleet.size < 2) await this.#troubles.addAdapter(life, this.#random);
    await cache.flush();
    cache.clearL1();
    await this.#checkEach(life);
    await this.#checkCrowd(life);
    await this.#checkStores(life);
    await clock.sleep(COOL_DOWN_MS);
    this.#checkLedger(life);
    await this.#world.close(life);
  }

  async #endTroubles(life: Life): Promise<void> {
    const { cache } = life;
    const { pinned, mortal } = this.#world;
    this.#world.trace.note("evening");
    await this.#troubles.attachDevice(life);
    this.#world.stopFaults(life);
    for (const { salt } of cache.quota.list()) cache.quota.delete(salt);
    cache.quota.setDefault({});
    this.#troubles.unpin(life, [...pinned.values()]);
    cache.ttl([...mortal.values()], null);
    for (const id of mortal.keys()) this.#world.endLife(id);
  }

  /**
   * Checks that objects are stored in every adapter, and loaded from each when no other has them.
   */
  async #checkEach(life: Life): Promise<void> {
    const { clock, fleet } = this.#world;
    for (const store of fleet.values()) {
      const [row] = rowsOf(MODEL, "grace", this.#chats.freshPath(6));
      if (row === undefined) continue;
      this.#put(life, [row]);
      await life.cache.flush();
      life.cache.clearL1();
      for (const other of fleet.values()) {
        if (!row.keys.every((key) => other.has(key))) {
          this.#world.fail(`${other.kind.type} does not store after the troubles`);
        }
        if (other !== store) { for (const { id } of row.keys) other.held.delete(id); }
      }
      // A circuit that the last match probed is closed once that call has ended.
      await clock.sleep(SECOND);
      await this.#matchAll(life, [row], `from ${store.kind.type}`);
    }
  }

  /** Checks that concurrent requests for the same prefix are all served. */
  async #checkCrowd(life: Life): Promise<void> {
    const random = this.#random;
    const path = this.#chats.freshPath(12);
    this.#put(life, rowsOf(MODEL, "ada", path));
    await life.cache.flush();
    for (let round = 0; round < 3; round++) {
      life.cache.clearL1();
      await Promise.all(Array.from({ length: CROWD }, async () => {
        const rows = rowsOf(MODEL, "ada", path.slice(0, 1 + random.below(path.length)));
        await this.#world.clock.sleep(random.chance(0.5) ? 0 : random.next() * 20);
        await this.#matchAll(life, rows, "in a crowd");
      }));
    }
  }

  /** Puts more than fits: objects that found memory must reach every adapter. */
  async #checkStores(life: Life): Promise<void> {
    const { clock, fleet, cacheOptions } = this.#world;
    const put: ObjectKey[] = [];
    for (let i = 0; i < 30; i++) {
      const [row] = rowsOf(MODEL, "grace", this.#chats.freshPath(8));
      if (row !== undefined) put.push(...this.#put(life, [row]));
      if (i % 4 === 3) await clock.sleep(20);
      // Otherwise full queues may drop objects.
      if (cacheOptions.store?.whenFull !== "wait") await life.cache.flush();
    }
    await life.cache.flush();
    for (const { kind, held } of fleet.values()) {
      const lacking = put.filter(({ id }) => !held.has(id));
      const isBounded = kind.capacityBytes !== undefined;
      if (!isBounded && lacking.length > 0) {
        this.#world.fail(`${kind.type} lacks ${lacking.length} of ${put.length} objects`);
      }
    }
    this.#world.trace.note("checked stores", `${put.length}`);
  }

  async #matchAll(life: Life, rows: readonly KeyGroup[], where: string): Promise<void> {
    const startedAt = this.#world.clock.now();
    const result = await life.cache.matchGroups(rows);
    using hit = new SimHit(this.#world, life, result, rows, startedAt);
    const chunks = rows[0]?.keys.length ?? 0;
    if (hit.length < chunks) {
      this.#world.fail(`a match ${where} has ${hit.length} of ${chunks} after the troubles`);
    }
    hit.check(where);
    this.#world.trace.note("evening hit", `${chunks}, ${this.#world.clock.now() - startedAt} ms`);
  }

  #put({ cache, device }: Life, rows: readonly KeyGroup[]): ObjectKey[] {
    const put: StagedObject[] = [];
    for (const { keys, layout } of rows) {
      for (const key of keys) {
        const [reservation] = cache.reserveWrite([key], layout);
        if (reservation?.status !== "success") break;
        device.upload(reservation.staged.range, [contentOf(key, layout.byteLength)]);
        put.push(reservation.staged);
      }
    }
    const { oracle, clock } = this.#world;
    const putKeys = put.map(({ key }) => key);
    oracle.put(putKeys, oracle.next(), clock.now());
    cache.finishWrite(put);
    return putKeys;
  }

  /** Checks that nothing is lent, locked, dirty or in flight. */
  #checkLedger({ cache, device, adapters }: Life): void {
    cache.clearL1();
    const status = cache.reportStatus();
    checkStatus(status);
    const { l1, store, prefetch, lifecycle } = status;
    const left: Record<string, number> = {
      readLocked: l1.readLockedCount,
      staged: l1.stagingObjectCount,
      held: l1.heldCount,
      leaving: l1.leavingCount,
      protected: l1.protectedCount,
      bytes: l1.usedBytes,
      unsaved: store.unsavedObjects,
      pending: store.pendingObjects,
      inFlight: store.inFlightObjects,
      requests: prefetch.activeRequests + prefetch.queuedRequests + prefetch.drainingRequests,
      loadBytes: prefetch.loadBytesInUse,
      readBackBytes: device.lentBytes,
      pinned: lifecycle.pinned,
      expiring: lifecycle.expiring,
      forgetting: lifecycle.forgetting,
    };
    for (const { type, lockedKeys, callsInFlight } of status.adapters) {
      left[`locks of ${type}`] = lockedKeys;
      left[`calls of ${type}`] = callsInFlight;
    }
    for (const [{ kind }, adapter] of adapters) left[`locks in ${kind.type}`] = adapter.lockCount;
    const wrong = Object.entries(left).filter(([, count]) => count !== 0);
    if (wrong.length > 0) this.#world.fail(`at the end there is left: ${JSON.stringify(wrong)}`);
  }
}
