import type { ObjectKey } from "../../../src/keys/object_key.ts";
import type { Buffers } from "./objects.ts";
import type { LookupKind } from "./row.ts";

/** The operations of a target in one round, with keys of its own. */
export interface Round {
  /** The buffers, one an object. */
  readonly buffers: Buffers;
  /** Keys of the objects, in the order of the buffers. */
  readonly keys: readonly ObjectKey[];
  /** Keys to look up: some of `keys`, and others that are nowhere. */
  readonly lookups: readonly ObjectKey[];
  /** How many calls the keys are spread over, all in flight together; each takes as many keys. */
  readonly inFlight: number;
  /** Told the bytes that a load brought, by a target that does not load into the buffers. */
  readonly onLoaded?: (index: number, payload: Uint8Array) => void;
}

/** Something that keeps objects. Each operation says how many keys it worked for. */
export interface BenchTarget extends AsyncDisposable {
  /** Name in the results. */
  readonly name: string;
  /** Operations at a time, where that is not the target's own decision. */
  readonly concurrency?: number;
  /** Time of the last operation, where the target measures it itself, in milliseconds. */
  readonly ownMs?: number;
  /** What it last said of a failure. */
  readonly lastError?: string | undefined;
  /** How it can look up keys. */
  readonly lookupKinds: readonly LookupKind[];
  /** Stores the objects from the buffers. */
  store(round: Round): Promise<number>;
  /** Looks keys up. */
  lookup(round: Round, how: LookupKind): Promise<number>;
  /** What comes before a load and is not measured. */
  prepareLoad?(round: Round): Promise<void>;
  /** Loads the objects, into the buffers where that can be told. */
  load(round: Round): Promise<number>;
  /** Removes the objects; not measured. */
  clear(round: Round): Promise<void>;
}

/** Counts the indices up to `count` for which `run` is true, `concurrency` of them at a time. */
export async function countInParallel(
  count: number,
  concurrency: number,
  run: (index: number) => Promise<boolean>,
): Promise<number> {
  let next = 0;
  let done = 0;
  const work = async (): Promise<void> => {
    while (next < count) if (await run(next++)) done++;
  };
  await Promise.all(Array.from({ length: Math.min(concurrency, count) }, work));
  return done;
}

/** Makes a directory, in another one if that is given, which `undo` removes. */
export async function temporaryDirectory(
  undo: AsyncDisposableStack,
  parent?: string,
): Promise<string> {
  if (parent !== undefined) await Deno.mkdir(parent, { recursive: true });
  const path = await Deno.makeTempDir({
    prefix: "kvtier-bench-",
    ...(parent === undefined ? {} : { dir: parent }),
  });
  undo.defer(() => Deno.remove(path, { recursive: true }));
  return path;
}
