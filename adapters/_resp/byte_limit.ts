/** Bounds what is in flight: who takes more waits until others give back. */
export class ByteLimit {
  readonly #maxBytes: number;
  readonly #waiting: { readonly bytes: number; readonly start: () => void }[] = [];
  #bytes = 0;

  /** At most `maxBytes` at a time; something larger goes alone. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Does `work`, which never rejects, for each item, in order, as soon as its bytes fit. */
  async forEach<Item>(
    items: readonly Item[],
    bytesOf: (item: Item) => number,
    work: (item: Item, index: number) => Promise<void>,
  ): Promise<void> {
    const running: Promise<void>[] = [];
    for (const [index, item] of items.entries()) {
      const bytes = bytesOf(item);
      if (!this.#fits(bytes)) {
        await new Promise<void>((start) => this.#waiting.push({ bytes, start }));
      } else this.#bytes += bytes;
      running.push(work(item, index).finally(() => this.#giveBack(bytes)));
    }
    await Promise.all(running);
  }

  #fits(bytes: number): boolean {
    if (this.#waiting.length > 0) return false;
    return this.#bytes === 0 || this.#bytes + bytes <= this.#maxBytes;
  }

  #giveBack(bytes: number): void {
    this.#bytes -= bytes;
    while (this.#waiting.length > 0) {
      const [next] = this.#waiting;
      if (next === undefined) return;
      if (this.#bytes > 0 && this.#bytes + next.bytes > this.#maxBytes) return;
      this.#waiting.shift();
      this.#bytes += next.bytes;
      next.start();
    }
  }
}
