/** Handle of an item in a {@linkcode LruList}. */
export interface LruPlace<T> {
  /** The item. */
  readonly item: T;
}

interface Link<T> {
  previous: Link<T>;
  next: Link<T>;
}

interface Member<T> extends Link<T>, LruPlace<T> {
  isRemoved: boolean;
}

/**
 * Items in order of last use. Every operation takes constant time; a `Map` does not guarantee that,
 * because each iteration skips the entries deleted at its front.
 */
export class LruList<T> implements Iterable<T> {
  // Sentinel of a ring: the least recently used item follows it, the most recently used one
  // precedes it.
  readonly #end: Link<T>;

  /** Creates an empty list. */
  constructor() {
    const end = {} as Link<T>;
    end.previous = end;
    end.next = end;
    this.#end = end;
  }

  /** The least recently used item; `undefined` if the list is empty. */
  get oldest(): T | undefined {
    return (this.#end.next as Partial<Member<T>>).item;
  }

  /** Inserts an item as most recently used. */
  add(item: T): LruPlace<T> {
    const end = this.#end;
    const member: Member<T> = { item, previous: end, next: end, isRemoved: false };
    this.#append(member);
    return member;
  }

  /** Marks an item as most recently used, unless it was removed. */
  renew(place: LruPlace<T>): void {
    const member = place as Member<T>;
    if (member.isRemoved) return;
    unlink(member);
    this.#append(member);
  }

  /** Removes an item, unless it was removed before. */
  remove(place: LruPlace<T>): void {
    const member = place as Member<T>;
    if (member.isRemoved) return;
    // Keeps the removed node's links so that a running iterator can continue.
    unlink(member);
    member.isRemoved = true;
  }

  /**
   * Iterates from the least to the most recently used item. Items may be removed during the
   * iteration.
   */
  *[Symbol.iterator](): Iterator<T> {
    for (let link = this.#end.next; link !== this.#end; link = link.next) {
      const member = link as Member<T>;
      if (!member.isRemoved) yield member.item;
    }
  }

  #append(member: Member<T>): void {
    member.previous = this.#end.previous;
    member.next = this.#end;
    member.previous.next = member;
    this.#end.previous = member;
  }
}

function unlink<T>({ previous, next }: Link<T>): void {
  previous.next = next;
  next.previous = previous;
}
