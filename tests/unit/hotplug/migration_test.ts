import { assertEquals, assertGreater, assertRejects } from "@std/assert";
import type { ObjectKey } from "../../../src/keys/object_key.ts";
import type { AdapterGuard } from "../../../src/l2/adapter_guard.ts";
import type { ForgetBarrier } from "../../../src/lifecycle/forget_barrier.ts";
import type { StagingPool } from "../../../src/memory/staging_pool.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { migrate, type MigrationOptions } from "../../../src/hotplug/migration.ts";
import { scratchPool } from "../../support/controllers.ts";
import { testKey, testKeys, testLayout } from "../../support/objects.ts";
import { gate, guardAll, RecordingAdapter } from "../../support/recording_adapter.ts";

const LAYOUT = testLayout(1024);
/** Bytes of an object with its trailer. */
const SEALED = 1024 + 64;

interface SetUp {
  readonly adapters: readonly RecordingAdapter[];
  readonly guards: readonly AdapterGuard[];
  readonly clock: ManualClock;
  readonly scratch: StagingPool<Uint8Array>;
  readonly batches: Promise<void>[];
  readonly options: MigrationOptions;
}

/** Three adapters; the first one is copied to the others. */
function setUp(
  options:
    & {
      blocks?: number;
      adapters?: RecordingAdapter[];
      isBlocked?: ForgetBarrier["blocks"];
    }
    & Partial<MigrationOptions> = {},
): SetUp {
  const {
    blocks = 4,
    adapters = Array.from({ length: 3 }, () => new RecordingAdapter()),
    isBlocked = () => false,
    ...rest
  } = options;
  const clock = new ManualClock();
  const guards = guardAll(adapters, clock);
  const scratch = scratchPool(4096, blocks);
  const batches: Promise<void>[] = [];
  const [from, ...others] = guards;
  return {
    adapters,
    guards,
    clock,
    scratch,
    batches,
    options: {
      from: from as AdapterGuard,
      to: () => others,
      scratch,
      signal: new AbortController().signal,
      ...rest,
      barrier: {
        blocks: isBlocked,
        track: (copy) => {
          batches.push(copy);
          return copy;
        },
      },
    },
  };
}

/** Asserts that a migration left no lock, no timer and no buffer behind. */
function assertIdle({ adapters, guards, clock, scratch }: SetUp): void {
  assertEquals(adapters.map(({ lockCount }) => lockCount), adapters.map(() => 0));
  assertEquals(guards.map(({ lockedKeys }) => lockedKeys), guards.map(() => 0));
  assertEquals([scratch.lentBytes, clock.pendingTimers], [0, 0]);
}

/** Number of the objects in each adapter. */
function counts({ adapters }: SetUp, keys: readonly ObjectKey[]): number[] {
  return adapters.map((adapter) => adapter.count(keys));
}

Deno.test("migrate() copies to each adapter what it lacks, byte for byte", async () => {
  const t = setUp();
  const [from, second, third] = t.adapters as [
    RecordingAdapter,
    RecordingAdapter,
    RecordingAdapter,
  ];
  const keys = testKeys(6);
  // An object of another layout, and one under a name that is too long for a file.
  const others = [testKey(50), testKey(51, { model: "m".repeat(250) })];
  from.seed(keys, LAYOUT);
  from.seed(others, testLayout(5000));
  second.seed(keys.slice(0, 2), LAYOUT);
  third.seed(keys.slice(1, 4), LAYOUT);
  const report = await migrate(t.options);
  assertEquals(report.presentObjects, 1, "both had one");
  assertEquals([report.copiedObjects, report.failedObjects], [7, 0]);
  assertGreater(report.copiedBytes, 5 * SEALED + 2 * 5000);
  assertEquals(counts(t, [...keys, ...others]), [8, 8, 8]);
  for (const { held } of t.adapters) assertEquals(held, from.held);
  assertEquals(second.stores.flat().length + third.stores.flat().length, 6 + 5);
  assertIdle(t);
});

Deno.test("migrate() copies more than fits into host memory, in batches", async () => {
  for (const blocks of [1, 2, 300]) {
    const t = setUp({ blocks });
    const keys = testKeys(600);
    t.adapters[0]?.seed(keys, LAYOUT);
    const report = await migrate(t.options);
    assertEquals([report.copiedObjects, report.copiedBytes], [600, 600 * SEALED], `${blocks}`);
    assertEquals(counts(t, keys), [600, 600, 600]);
    for (const batch of t.adapters[0]?.loads ?? []) {
      assertEquals(batch.length <= 256, true, "objects of a batch");
    }
    assertIdle(t);
  }
});

Deno.test("migrate() fails an object that is larger than host memory, and copies the others", async () => {
  const t = setUp({ blocks: 2 });
  t.adapters[0]?.seed([testKey(1)], testLayout(8192));
  t.adapters[0]?.seed([testKey(2)], LAYOUT);
  const report = await migrate(t.options);
  assertEquals([report.copiedObjects, report.failedObjects], [1, 1]);
  assertIdle(t);
});

Deno.test("migrate() copies no damaged object, and reports it", async () => {
  const t = setUp();
  const keys = testKeys(4);
  t.adapters[0]?.seed(keys, LAYOUT);
  const bytes = t.adapters[0]?.held.get(keys[2]?.id ?? "");
  if (bytes !== undefined) bytes[100] = (bytes[100] ?? 0) ^ 1;
  const report = await migrate(t.options);
  assertEquals([report.copiedObjects, report.failedObjects], [3, 1]);
  assertEquals(counts(t, keys), [3, 3, 3], "it is removed, so that the next call succeeds");
  assertEquals((await migrate(t.options)).failedObjects, 0);
});

Deno.test("migrate() does not fail what another adapter has, or what was removed meanwhile", async () => {
  const t = setUp();
  const [from, second] = t.adapters as [RecordingAdapter, RecordingAdapter];
  const keys = testKeys(3);
  from.seed(keys, LAYOUT);
  second.seed(keys.slice(0, 1), LAYOUT);
  second.beforeLookup = () => void from.held.delete(keys[2]?.id ?? "");
  const third = t.adapters[2] as RecordingAdapter;
  third.beforeStore = () => Promise.reject(new Error("full"));
  const report = await migrate(t.options);
  assertEquals(report, {
    copiedObjects: 1,
    copiedBytes: SEALED,
    presentObjects: 1,
    failedObjects: 0,
  });
  assertEquals(counts(t, keys), [2, 2, 0]);
  assertIdle(t);
});

const troubles: Record<string, (adapters: readonly RecordingAdapter[]) => void> = {
  "no adapter takes": ([, second, third]) => {
    for (const adapter of [second, third]) {
      if (adapter !== undefined) adapter.beforeStore = () => Promise.reject(new Error("full"));
    }
  },
  "cannot be looked up": ([from]) => {
    if (from !== undefined) from.beforeLookup = () => Promise.reject(new Error("broken"));
  },
  "cannot be loaded": ([from]) => {
    if (from !== undefined) from.beforeLoad = () => Promise.reject(new Error("broken"));
  },
};
for (const [name, cause] of Object.entries(troubles)) {
  Deno.test(`migrate() counts as failed what ${name}`, async () => {
    const t = setUp();
    t.adapters[0]?.seed(testKeys(3), LAYOUT);
    cause(t.adapters);
    const report = await migrate(t.options);
    assertEquals([report.copiedObjects, report.failedObjects], [0, 3]);
    assertIdle(t);
  });
}

Deno.test("migrate() counts as failed what is too large for all others", async () => {
  const small = class extends RecordingAdapter {
    override readonly capabilities = { maxObjectBytes: 2000 };
  };
  const t = setUp({ adapters: [new RecordingAdapter(), new small()] });
  t.adapters[0]?.seed([testKey(1)], testLayout(4000));
  t.adapters[0]?.seed([testKey(2)], LAYOUT);
  const report = await migrate(t.options);
  assertEquals([report.copiedObjects, report.failedObjects], [1, 1]);
  assertEquals(t.adapters[1]?.stores.flat(), [testKey(2).id]);
});

Deno.test("migrate() throws if the listing is incomplete", async () => {
  const t = setUp();
  const [from] = t.adapters as [RecordingAdapter];
  from.seed(testKeys(3), LAYOUT);
  const list = from.list.bind(from);
  from.list = async function* (options) {
    for await (const object of list(options)) {
      yield object;
      throw new Error("broken");
    }
  };
  await assertRejects(() => migrate(t.options), Error, "could be listed: call again");
  assertEquals(counts(t, testKeys(3)), [3, 1, 1], "what was listed is copied");
  assertIdle(t);
});

Deno.test("migrate() copies no blocked object", async () => {
  const blocked = new Set(testKeys(2).map(({ id }) => id));
  const t = setUp({ isBlocked: ({ id }) => blocked.has(id) });
  t.adapters[0]?.seed(testKeys(4), LAYOUT);
  const report = await migrate(t.options);
  assertEquals([report.copiedObjects, report.failedObjects], [2, 0]);
  assertEquals(counts(t, testKeys(2)), [2, 0, 0]);
});

Deno.test("migrate() tells of each batch at the moment in which it asks what is forgotten", async () => {
  const asked: number[] = [];
  const t = setUp({
    isBlocked: () => {
      asked.push(t.batches.length);
      return false;
    },
  });
  t.adapters[0]?.seed(testKeys(300), LAYOUT);
  await migrate(t.options);
  // For the first batch before it is tracked, in the same turn; for the last one when all others
  // are.
  assertEquals([asked.length, asked[0], asked.at(-1)], [300, 0, t.batches.length - 1]);
  await Promise.all(t.batches);
});

Deno.test("migrate() stops when it is aborted, and leaves nothing locked", async () => {
  const controller = new AbortController();
  const t = setUp({ signal: controller.signal });
  const [from, second] = t.adapters as [RecordingAdapter, RecordingAdapter];
  from.seed(testKeys(3), LAYOUT);
  const { promise, open } = gate();
  const reached = gate();
  second.beforeLookup = () => {
    reached.open();
    return promise;
  };
  const migrated = migrate(t.options);
  await reached.promise;
  controller.abort(new Error("enough"));
  await assertRejects(() => migrated, Error, "enough");
  open();
  await t.clock.advance(0);
  assertEquals(from.loads, []);
  assertIdle(t);
});

Deno.test("migrate() copies to the adapters that accept stores when a batch begins", async () => {
  const t = setUp({ blocks: 1 });
  const [from, second, third] = t.adapters as [
    RecordingAdapter,
    RecordingAdapter,
    RecordingAdapter,
  ];
  const keys = testKeys(6);
  from.seed(keys, LAYOUT);
  const to = (): AdapterGuard[] => t.guards.slice(second.stores.length === 0 ? 1 : 2);
  const report = await migrate({ ...t.options, to });
  assertEquals(report.copiedObjects, 6);
  assertEquals([second.count(keys), third.count(keys)], [3, 6]);
});
