import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { join } from "@std/path";
import { hostFileSystem } from "../../../../adapters/_fs/file_system.ts";
import type { LedgerState } from "../../../../adapters/_fs/ledger_state.ts";
import { UsageLedger } from "../../../../adapters/_fs/usage_ledger.ts";
import { WriterAccount } from "../../../../adapters/_fs/writer_account.ts";
import { systemClock } from "../../../../src/base/clock.ts";
import { systemRandom } from "../../../../src/base/random.ts";
import { tempDirectory } from "../../../support/temp_directory.ts";

/** Writers of one directory with their leases, in a new ledger. */
async function open(...granted: readonly number[]) {
  const directory = await tempDirectory();
  const path = join(directory.path, "usage.ledger");
  const ledger = new UsageLedger({
    files: hostFileSystem,
    path,
    mode: 0o600,
    clock: systemClock,
    random: systemRandom,
  });
  const writers = granted.map((_, i) => {
    return new WriterAccount({ ledger, tag: `${i}-writer`, clock: systemClock });
  });
  for (const [i, writer] of writers.entries()) await grant(writer, granted[i] as number);
  return {
    writers: writers as [WriterAccount, WriterAccount],
    path,
    state: async (): Promise<LedgerState> => {
      const state = await ledger.peek();
      assert(state !== undefined);
      return state;
    },
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

/** Creates a ledger for a directory with `onDisk` bytes, if there is none. */
async function make(writer: WriterAccount, onDisk = 0): Promise<void> {
  await writer.update(undefined, () => writer.created({ onDisk, written: 0, others: {} }));
}

/** Leases space to a writer. */
async function grant(writer: WriterAccount, bytes: number): Promise<void> {
  await make(writer);
  await writer.update((state) => ({
    ...writer.renewed(state, bytes),
    used: state.used + bytes,
    granted: state.granted + bytes,
  }));
  writer.grant(bytes);
}

/** Makes a writer reserve and write a file. */
function write(writer: WriterAccount, bytes: number): void {
  assert(writer.tryReserve(bytes));
  writer.settled(bytes);
}

Deno.test("a writer's lease and writes are recorded in a ledger recreated by others", async () => {
  await using opened = await open(100, 100);
  const { writers: [one, other], path, state } = opened;
  await Deno.remove(path);
  await make(other);
  assertEquals((await state()).used, 100);
  write(one, 60);
  await one.update();
  const { used, leases } = await state();
  assertEquals([used, leases["0-writer"]], [200, 100]);
  assert(one.needsCount, "the count of the new ledger may include what was written");
  one.corrected();
  await one.update();
  assertEquals([(await state()).used, one.needsCount], [200, false], "it is recorded once");
});

Deno.test("a removal is not subtracted from another ledger", async () => {
  await using opened = await open(100, 0);
  const { writers: [one, other], path, state } = opened;
  write(one, 100);
  const { id } = await state();
  await Deno.remove(path);
  await make(other, 100);
  const before = (await state()).used;
  await other.credit(100, id);
  assertEquals((await state()).used, before);
  await other.credit(30, (await state()).id);
  assertEquals((await state()).used, before - 30);
});

Deno.test("a removal deferred while the ledger is held is subtracted only from that ledger", async () => {
  await using opened = await open(100, 0);
  const { writers: [one, other], path, state } = opened;
  write(one, 100);
  const { id } = await state();
  other.deferCredit(40, id);
  await other.update();
  assertEquals((await state()).used, 60);
  other.deferCredit(40, id);
  await Deno.remove(path);
  await make(other, 60);
  assertEquals((await state()).used, 60);
});

Deno.test("the used bytes of a ledger never fall below 0", async () => {
  await using opened = await open(100, 0);
  const { writers: [one], state } = opened;
  const { id } = await state();
  await one.credit(500, id);
  assertEquals([(await state()).used, (await state()).id], [0, id]);
  one.deferCredit(500, id);
  await one.update();
  assertEquals([(await state()).used, (await state()).id], [0, id]);
  await one.close();
  assertEquals([(await state()).used, (await state()).id], [0, id]);
});

Deno.test("an older copy of the ledger gets a new id, and all grants since", async () => {
  await using opened = await open(100, 10);
  const { writers: [one, other], path, state } = opened;
  const older = await Deno.readFile(path);
  const { id } = await state();
  write(one, 100);
  await grant(one, 70);
  await grant(other, 50);
  assertEquals((await state()).used, 230);
  await Deno.writeFile(path, older);
  await other.update();
  const corrected = await state();
  assertNotEquals(corrected.id, id);
  assert(corrected.used >= 230, `${corrected.used}`);
  // A writer that did not see the older copy notices the new id.
  await one.update();
  assertEquals([one.needsCount, other.needsCount], [true, true]);
});

Deno.test("a writer that closes with an uncertain ledger requests a count", async () => {
  await using opened = await open(100, 100);
  const { writers: [one, other], path, state } = opened;
  await other.close();
  assert((await state()).countedAt > 0);
  await Deno.remove(path);
  await make(other);
  await one.close();
  assertEquals((await state()).countedAt, 0);
});

Deno.test("a new ledger contains its creator's writes once, and the leases of others", async () => {
  await using opened = await open(100, 0);
  const { writers: [one], path, state } = opened;
  write(one, 60);
  const { written } = one;
  assertEquals(written, 60);
  await Deno.remove(path);
  await one.update(
    undefined,
    () => one.created({ onDisk: 60, written, others: { "1-writer": 25 } }),
  );
  const { used, leases } = await state();
  // On disk, the remaining lease, and the lease of the other writer.
  assertEquals([used, leases], [60 + 40 + 25, { "0-writer": 40, "1-writer": 25 }]);
});
