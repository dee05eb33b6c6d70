/** An item in a {@linkcode UseOrder}; belongs to that order. */
export interface Place<T> {
  /** The item. */
  readonly item: T;
}

interface Link<T> {
  previous: Link<T>;
  next: Link<T>;
}

interface Member<T> extends Link<T>, Place<T> {
  isRemoved: boolean;
}

/**
 * Items in the order of their last use, for adapters that bound themselves. All operations take
 * constant time, which the order of a `Map` does not promise: what was deleted at its front is
 * skipped by each new iteration.
 */
export class UseOrder<T> implements Iterable<T> {
  // A ring: after its end comes what was used longest ago, before it the latest.
  readonly #end: Link<T>;

  /** Without items. */
  constructor() {
    const end = {} as Link<T>;
    end.previous = end;
    end.next = end;
    this.#end = end;
  }

  /** Inserts an item as used just now. */
  add(item: T): Place<T> {
    const { previous } = this.#end;
    const member: Member<T> = { item, previous, next: this.#end, isRemoved: false };
    previous.next = member;
    this.#end.previous = member;
    return member;
  }

  /** Counts an item as used just now; nothing happens to one that was removed. */
  renew(place: Place<T>): void {
    const member = place as Member<T>;
    if (member.isRemoved) return;
    unlink(member);
    const { previous } = this.#end;
    member.previous = previous;
    member.next = this.#end;
    previous.next = member;
    this.#end.previous = member;
  }

  /** Removes an item; nothing happens if it was removed before. */
  remove(place: Place<T>): void {
    const member = place as Member<T>;
    if (member.isRemoved) return;
    // Its own links stay, so that who stands on it finds the way on.
    unlink(member);
    member.isRemoved = true;
  }

  /** Items from the one used longest ago to the latest; they may be removed meanwhile. */
  *[Symbol.iterator](): Iterator<T> {
    for (let link = this.#end.next; link !== this.#end; link = link.next) {
      const member = link as Member<T>;
      if (!member.isRemoved) yield member.item;
    }
  }
}

function unlink<T>({ previous, next }: Link<T>): void {
  previous.next = next;
  next.previous = previous;
}
