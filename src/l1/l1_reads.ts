import type { ObjectKey } from "../keys/object_key.ts";
import { EntryPin } from "./l1_entry.ts";
import type { L1Objects } from "./l1_objects.ts";
import type { L1Pin, L1Status, ReadReservation } from "./l1_types.ts";

/** The readers of the objects of an L1, which pin them. */
export class L1Reads {
  readonly #objects: L1Objects;
  readonly #ttlMs: number;

  /** @param ttlMs After this time a pin may be void. */
  constructor(objects: L1Objects, ttlMs: number) {
    this.#objects = objects;
    this.#ttlMs = ttlMs;
  }

  /** Pins a resident object. */
  reserve({ id }: ObjectKey, now: number): ReadReservation {
    const { table, isLost } = this.#objects;
    if (isLost()) return { status: "device-lost" };
    const entry = table.get(id);
    if (entry === undefined) return { status: "key-not-exist" };
    table.lock(entry, now, now + this.#ttlMs);
    return { status: "success", pin: new EntryPin(entry) };
  }

  /** Gives up pins. A pin that expired, or is given up twice, changes nothing. */
  finish(pins: readonly L1Pin[]): L1Status[] {
    const { table, clock } = this.#objects;
    const now = clock.now();
    const statuses = pins.map((pin): L1Status => {
      if (!(pin instanceof EntryPin) || pin.entry.state === "gone") return "key-not-exist";
      if (this.#objects.isLost() || !pin.isLive(now)) return "key-in-wrong-state";
      pin.isReleased = true;
      const { entry } = pin;
      table.unlock(entry);
      if (entry.locks > 0) return "success";
      if (entry.state === "leaving") table.discard(entry);
      else if (entry.isTemporary && entry.mayLeave(now)) this.#objects.remove(entry, "temporary");
      return "success";
    });
    this.#objects.notifyRemoved();
    return statuses;
  }

  /** Whether all of these pins still protect their objects. */
  arePinned(pins: readonly L1Pin[]): boolean {
    const now = this.#objects.clock.now();
    return !this.#objects.isLost() &&
      pins.every((pin) => pin instanceof EntryPin && pin.isLive(now));
  }

  /** Lets pins live for the whole time again; whether all of them protect their objects still. */
  renew(pins: readonly L1Pin[]): boolean {
    if (!this.arePinned(pins)) return false;
    const expiresAt = this.#objects.clock.now() + this.#ttlMs;
    for (const pin of pins) if (pin instanceof EntryPin) pin.entry.lockExpiresAt = expiresAt;
    return true;
  }
}
