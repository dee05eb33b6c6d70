import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { hostFileSystem } from "../../../../adapters/_fs/file_system.ts";
import { leasedBytes, type LedgerState, reconcile } from "../../../../adapters/_fs/ledger_state.ts";
import { UsageLedger } from "../../../../adapters/_fs/usage_ledger.ts";
import { systemClock } from "../../../../src/base/clock.ts";
import { crc32 } from "../../../../src/base/checksum.ts";
import { systemRandom } from "../../../../src/base/random.ts";
import { ManualClock } from "../../../../src/testing/manual_clock.ts";
import { FaultyFiles, systemError } from "../../../support/faulty_files.ts";
import { tempDirectory } from "../../../support/temp_directory.ts";

const STATE: LedgerState = {
  id: "0123456789abcdef",
  used: 5,
  granted: 7,
  credited: 2,
  replaced: 1,
  leases: { "1-a": 3, "2-b": 4 },
  countedAt: 1000,
};

function ledgerAt(path: string, files = hostFileSystem, clock = systemClock): UsageLedger {
  return new UsageLedger({ files, path, mode: 0o600, clock, random: systemRandom });
}

const read = (ledger: UsageLedger) => ledger.update((state) => state);

Deno.test("a missing ledger is unknown; an update is visible to other processes", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "usage.ledger");
  const [one, other] = [ledgerAt(path), ledgerAt(path)];
  assertEquals(await read(one), undefined);
  assertEquals(await one.update(() => STATE), STATE);
  assertEquals(await read(other), STATE);
  const shorter = { ...STATE, leases: {} };
  await other.update((state) => state && { ...state, leases: {} });
  assertEquals(await read(one), shorter);
  assertEquals([one.isShared, leasedBytes(STATE)], [true, 7]);
});

Deno.test("an unchanged ledger is not written", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "usage.ledger");
  const faulty = new FaultyFiles();
  const ledger = ledgerAt(path, faulty.files);
  await ledger.update(() => STATE);
  faulty.arm(() => undefined);
  await read(ledger);
  await ledger.update(() => undefined);
  assert(faulty.calls.every(({ operation }) => operation !== "lock.write"));
  assertEquals(await read(ledger), STATE);
});

Deno.test("a torn, damaged or foreign ledger is unknown, and can be created anew", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "usage.ledger");
  const ledger = ledgerAt(path);
  await ledger.update(() => STATE);
  const whole = await Deno.readFile(path);
  // The last line feed may be missing, because all content is present then.
  const torn = Array.from({ length: whole.length - 1 }, (_, length) => whole.slice(0, length));
  const flipped = Array.from(whole.slice(0, -1), (byte, i) => whole.with(i, byte ^ 1));
  const contents = [
    "",
    "\n",
    "\n\n",
    "\n0\n",
    "0",
    "{}",
    "null\n",
    "hello\nworld\n",
    "\0".repeat(9),
  ];
  const foreign = [
    ...contents.map((content) => new TextEncoder().encode(content)),
    new Uint8Array(5000),
  ];
  for (const bytes of [...torn, ...flipped, ...foreign]) {
    await Deno.writeFile(path, bytes);
    assertEquals(await read(ledger), undefined, new TextDecoder().decode(bytes));
  }
  assertEquals(await ledger.update((state) => state === undefined ? STATE : undefined), STATE);
  assertEquals(await read(ledger), STATE);
});

Deno.test("invalid content with a valid checksum is unknown", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "usage.ledger");
  for (const text of ["null", "{", "[]", '{"used":"5"}', '{"used":1}', "7", '"x"']) {
    const checksum = crc32(new TextEncoder().encode(text)).toString(16);
    await Deno.writeTextFile(path, `${text}\n${checksum}\n`);
    assertEquals(await read(ledgerAt(path)), undefined, text);
  }
});

Deno.test("a ledger of version 0.1 gets an id, and invalid numbers are rejected", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "usage.ledger");
  const write = async (state: unknown): Promise<void> => {
    const text = JSON.stringify(state);
    await Deno.writeTextFile(
      path,
      `${text}\n${crc32(new TextEncoder().encode(text)).toString(16)}\n`,
    );
  };
  const { id: _, ...old } = STATE;
  await write(old);
  const [one, other] = [ledgerAt(path), ledgerAt(path)];
  const { id = "", ...numbers } = await read(one) ?? {};
  assertEquals(numbers, old);
  assert(id !== "");
  assertEquals((await read(other))?.id, id, "it is the same for all");
  for (const bytes of [-1, 2 ** 53, 1e300, 0.5, null, "5"]) {
    for (const field of ["used", "granted", "credited", "replaced"]) {
      await write({ ...STATE, [field]: bytes });
      assertEquals(await read(one), undefined, `${field} ${bytes}`);
    }
    await write({ ...STATE, leases: { "1-a": bytes } });
    assertEquals(await read(one), undefined);
  }
  const many = Array.from({ length: 5000 }, (_, i) => [`${i}-a`, 1]);
  await write({ ...STATE, leases: Object.fromEntries(many) });
  assertEquals(await read(one), undefined);
});

Deno.test("a ledger is read without its lock, unless it is torn", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "usage.ledger");
  const ledger = ledgerAt(path);
  assertEquals(await ledger.peek(), undefined);
  await ledger.update(() => STATE);
  using held = await hostFileSystem.lock(path, { create: false, mode: 0o600 });
  assert(held !== undefined);
  assertEquals(await ledger.peek(), STATE);
  await Deno.truncate(path, 20);
  assertEquals(await ledger.peek(), undefined);
});

Deno.test("a count corrects only the ledger that it began with", () => {
  const counted = { before: STATE, onDisk: 4, dead: new Set(["2-b"]), mayBeTooLow: false };
  const now = { ...STATE, used: 100, granted: 17 };
  const corrected = reconcile(now, counted);
  // Bytes on disk, leases of living writers, and what was granted meanwhile.
  assertEquals([corrected.used, corrected.leases], [4 + 3 + 10, { "1-a": 3 }]);
  for (const other of [{ id: "fedcba9876543210" }, { granted: 6 }, { credited: 1 }]) {
    const another = { ...now, ...other };
    assertEquals(reconcile(another, counted), another);
  }
  assertEquals(reconcile(now, { ...counted, before: undefined }), now);
});

Deno.test("a ledger that may be too low has the highest possible total after a count", () => {
  const counted = { before: STATE, onDisk: 100, dead: new Set<string>() };
  // 50 bytes were removed meanwhile; the count may have included them or not.
  const now = { ...STATE, used: 60, credited: STATE.credited + 50 };
  assertEquals(reconcile(now, { ...counted, mayBeTooLow: false }).used, 60);
  assertEquals(reconcile(now, { ...counted, mayBeTooLow: true }).used, 100 + 3 + 4);
});

Deno.test("concurrent updates of many processes are not lost", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "usage.ledger");
  const ledgers = Array.from({ length: 4 }, () => ledgerAt(path));
  await ledgers[0]?.update(() => ({ ...STATE, used: 0 }));
  const add = (state: LedgerState | undefined) => state && { ...state, used: state.used + 1 };
  await Promise.all(
    ledgers.flatMap((ledger) => Array.from({ length: 50 }, () => ledger.update(add))),
  );
  assertEquals((await read(ledgerAt(path)))?.used, 200);
});

Deno.test("updates of one process run in order", async () => {
  await using directory = await tempDirectory();
  const ledger = ledgerAt(join(directory.path, "usage.ledger"));
  const seen: number[] = [];
  await Promise.all(Array.from({ length: 20 }, (_, i) =>
    ledger.update(() => {
      seen.push(i);
      return { ...STATE, used: i };
    })));
  assertEquals(seen, Array.from({ length: 20 }, (_, i) => i));
});

Deno.test("a failed update has no effect, and leaves nothing locked", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "usage.ledger");
  const faulty = new FaultyFiles();
  const ledger = ledgerAt(path, faulty.files);
  await ledger.update(() => STATE);
  for (const failing of ["lock", "lock.read", "lock.write"]) {
    faulty.arm(({ operation }) => operation === failing ? systemError("EIO") : undefined);
    await assertRejects(() => ledger.update(() => ({ ...STATE, used: 99 })), Error, "EIO");
    faulty.disarm();
    assertEquals([await read(ledger), faulty.locked], [STATE, []]);
  }
  await assertRejects(() => ledger.update(() => JSON.parse("{")), SyntaxError);
  assertEquals([await read(ledger), faulty.locked], [STATE, []]);
});

Deno.test("an update waits for a held ledger, and finally gives up", async () => {
  await using directory = await tempDirectory();
  const path = join(directory.path, "usage.ledger");
  const clock = new ManualClock();
  const faulty = new FaultyFiles();
  const ledger = ledgerAt(path, faulty.files, clock);
  await ledger.update(() => STATE);
  {
    using held = await hostFileSystem.lock(path, { create: true, mode: 0o600 });
    assert(held !== undefined);
    const waiting = ledger.update((state) => state);
    await faulty.settled();
    assertEquals(clock.pendingTimers, 1);
    const failure = waiting.catch((error: unknown) => error);
    for (let i = 0; i < 6; i++) {
      await clock.advance(1000);
      await faulty.settled();
    }
    const error = await failure;
    assert(
      error instanceof Error && error.message.includes("locked by another process"),
      `${error}`,
    );
  }
  assertEquals(clock.pendingTimers, 0);
  const again = ledger.update((state) => state && { ...state, used: 6 });
  assertEquals((await again)?.used, 6);
});

Deno.test("without lock support, each process has its own ledger", async () => {
  for (const code of ["ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS"]) {
    await using directory = await tempDirectory();
    const path = join(directory.path, "usage.ledger");
    const faulty = new FaultyFiles();
    faulty.arm(({ operation }) => operation === "lock" ? systemError(code) : undefined);
    const [one, other] = [ledgerAt(path, faulty.files), ledgerAt(path, faulty.files)];
    assertEquals(await read(one), undefined);
    assertEquals(one.isShared, false);
    await one.update(() => STATE);
    assertEquals([await read(one), await read(other)], [STATE, undefined]);
    assertEquals(faulty.failed.length, 2, "what cannot work is tried once");
  }
});
