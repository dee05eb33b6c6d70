// Promises of the contract to an adapter, which the guard keeps.
import { assertEquals } from "@std/assert";
import type { AdapterObject } from "../../../src/adapter/contract.ts";
import { RecordingAdapter } from "../../support/recording_adapter.ts";
import { bound, empty, guardOf, keys, layout, prefix, sealed } from "./guarded.ts";

Deno.test("the arrays that an adapter is given stay as they are until its call settles", async () => {
  const adapter = new RecordingAdapter();
  adapter.seed(keys, layout);
  const methods = bound(adapter);
  const soon = (): Promise<void> => Promise.resolve();
  // Each call reads its arguments after its caller has continued.
  const { guard } = guardOf({
    store: (objects, options) => soon().then(() => methods.store(objects, options)),
    lookupAndLock: (keys, options) => soon().then(() => methods.lookupAndLock(keys, options)),
    load: (objects, options) => soon().then(() => methods.load(objects, options)),
    unlock: methods.unlock,
    delete: (keys, options) => soon().then(() => methods.delete(keys, options)),
  });
  const ids = keys.map(({ id }) => id);
  /** Makes a call with an array that is cleared at once. */
  const cleared = async <Item, Result>(
    items: Item[],
    call: (items: Item[]) => Promise<Result>,
  ): Promise<Result> => {
    const calling = call(items);
    items.length = 0;
    return await calling;
  };
  assertEquals(String((await cleared([...sealed], (items) => guard.store(items))).done), "111");
  assertEquals(
    String((await cleared([...keys], (items) => guard.lookup(items, prefix))).done),
    "111",
  );
  assertEquals(String((await cleared(empty(), (items) => guard.load(items))).done), "111");
  assertEquals(guard.lockedKeys, 0);
  assertEquals(String((await cleared([...keys], (items) => guard.delete(items))).done), "111");
  assertEquals([adapter.stores, adapter.lookups, adapter.loads, adapter.deletes], [
    [ids],
    [ids],
    [ids],
    [ids],
  ]);
  assertEquals(adapter.lockCount, 0);
});

Deno.test("onLoaded never throws, so that no adapter loses the rest of a load for it", async () => {
  const thrown: unknown[] = [];
  const late: ((index: number) => void)[] = [];
  const adapter = new RecordingAdapter();
  adapter.seed(keys, layout);
  const { guard } = guardOf({
    ...bound(adapter),
    load: async (objects, options) => {
      const { onLoaded = () => {} } = options;
      const tell = (index: number): void => {
        try {
          onLoaded(index);
        } catch (error) {
          thrown.push(error);
        }
      };
      late.push(tell);
      for (const index of [-1, 3, 0.5, NaN, Infinity, undefined as unknown as number]) tell(index);
      const loaded = await adapter.load(objects, options);
      // Buffers that the adapter has detached cannot be read any more.
      for (const { buffer } of (objects[1] as AdapterObject).parts) {
        structuredClone(buffer, { transfer: [buffer as ArrayBuffer] });
      }
      for (const index of [0, 1, 2, 2]) tell(index);
      return loaded;
    },
  });
  await guard.lookup(keys, prefix);
  assertEquals(String((await guard.load(empty())).done), "101");
  for (const tell of late) tell(0);
  assertEquals(thrown, []);
  assertEquals(guard.reportStatus().loadedObjects, 2);
});
