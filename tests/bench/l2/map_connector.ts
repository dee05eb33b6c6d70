/** What a connector can be made of. It may keep the arrays that it gets. */
const held = new Map<string, Uint8Array>();

export default {
  get: (key: string): Promise<Uint8Array | undefined> => Promise.resolve(held.get(key)),
  set: (key: string, value: Uint8Array): Promise<void> => {
    held.set(key, value);
    return Promise.resolve();
  },
  exists: (key: string): Promise<boolean> => Promise.resolve(held.has(key)),
  delete: (key: string): Promise<boolean> => Promise.resolve(held.delete(key)),
  list: (): Iterable<string> => held.keys(),
};
