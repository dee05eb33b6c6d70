import type { EvictionPolicy } from "./eviction_policy.ts";

interface Node {
  readonly id: string;
  previous: Node;
  next: Node;
  isRemoved: boolean;
}

/** Least recently used first; of objects used together, the tail of the prefix first. */
export class LruPolicy implements EvictionPolicy {
  /** Name of the policy. */
  readonly name = "lru";
  readonly #nodes = new Map<string, Node>();
  // A ring: after its end comes the node that was used longest ago, before it the latest.
  readonly #end: Node = endNode();

  /** Inserts as most recent. */
  admitted(ids: readonly string[]): void {
    for (let i = ids.length - 1; i >= 0; i--) {
      const id = ids[i] as string;
      const known = this.#nodes.get(id);
      if (known !== undefined) {
        this.#renew(known);
        continue;
      }
      const end = this.#end;
      const node = { id, previous: end.previous, next: end, isRemoved: false };
      end.previous.next = node;
      end.previous = node;
      this.#nodes.set(id, node);
    }
  }

  /** Moves to most recent. */
  touched(ids: readonly string[]): void {
    for (let i = ids.length - 1; i >= 0; i--) {
      const node = this.#nodes.get(ids[i] as string);
      if (node !== undefined) this.#renew(node);
    }
  }

  /** Forgets an id. */
  removed(id: string): void {
    const node = this.#nodes.get(id);
    if (node === undefined) return;
    this.#nodes.delete(id);
    node.previous.next = node.next;
    node.next.previous = node.previous;
    // Its own links stay, so that who stands on it finds the way on.
    node.isRemoved = true;
  }

  /** Ids from the least to the most recently used. */
  *candidates(): Iterable<string> {
    for (let node = this.#end.next; node !== this.#end; node = node.next) {
      if (!node.isRemoved) yield node.id;
    }
  }

  #renew(node: Node): void {
    const end = this.#end;
    node.previous.next = node.next;
    node.next.previous = node.previous;
    node.previous = end.previous;
    node.next = end;
    end.previous.next = node;
    end.previous = node;
  }
}

function endNode(): Node {
  const node = { id: "", isRemoved: false } as Node;
  node.previous = node;
  node.next = node;
  return node;
}
