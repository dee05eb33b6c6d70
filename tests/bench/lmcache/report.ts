import { type LookupKind, type Operation, OPERATIONS } from "../l2/row.ts";
import { median } from "../statistics.ts";

/** What a target took in one alternation. */
export interface Run {
  /** Name of the target. */
  readonly target: string;
  /** What. */
  readonly op: Operation;
  /** How keys were looked up. */
  readonly how: LookupKind | undefined;
  /** Median over the rounds. */
  readonly medianMs: number;
}

/** One operation of one target on objects of one size. */
export interface Row {
  /** Name of the target. */
  readonly target: string;
  /** Size of an object. */
  readonly objectBytes: number;
  /** Objects a round. */
  readonly objects: number;
  /** What was done. */
  readonly op: Operation;
  /** How keys were looked up. */
  readonly how?: LookupKind;
  /** Median over the alternations. */
  readonly medianMs: number;
  /** The fastest alternation. */
  readonly minMs: number;
  /** The slowest alternation. */
  readonly maxMs: number;
  /**
   * For our targets: LMCache's time divided by ours, so that more than 1 means that ours is faster;
   * by LMCache's adapter.
   */
  readonly timesAsFast?: Readonly<Record<string, number>>;
}

const PEERS = ["fs_native", "fs"];

/** The rows of one size. */
export function rowsOf(runs: readonly Run[], objectBytes: number, objects: number): Row[] {
  const groups = Map.groupBy(runs, ({ target, op, how }) => [target, op, how].join());
  const rows = [...groups.values()].map((group): Row => {
    const { target, op, how } = group[0] as Run;
    const times = group.map(({ medianMs }) => medianMs);
    return {
      target,
      objectBytes,
      objects,
      op,
      ...(how === undefined ? {} : { how }),
      medianMs: median(times),
      minMs: Math.min(...times),
      maxMs: Math.max(...times),
    };
  });
  return rows.map((row) => {
    if (!row.target.startsWith("kvtier")) return row;
    const ratios = PEERS.map((type) => {
      const peer = rows.find(({ target, op }) => target === `lmcache-${type}` && op === row.op);
      return [type, (peer?.medianMs ?? NaN) / row.medianMs] as const;
    });
    return { ...row, timesAsFast: Object.fromEntries(ratios) };
  });
}

/** The rows as a table in Markdown, milliseconds for all objects of a round. */
export function table(rows: readonly Row[]): string {
  const ours = [...new Set(rows.map(({ target }) => target))]
    .filter((target) => target.startsWith("kvtier"));
  const head = [
    "Object",
    "Operation",
    ...PEERS.map((type) => `LMCache ${type}`),
    ...ours.flatMap((target) => [target, ...PEERS.map((type) => `than ${type}`)]),
  ];
  const sizes = [...new Set(rows.map(({ objectBytes }) => objectBytes))];
  const lines = sizes.flatMap((bytes) =>
    OPERATIONS.flatMap((op) => {
      const shown = rows.filter((row) => row.objectBytes === bytes && row.op === op);
      const kinds = new Set(shown.filter((row) => isOurs(row)).map(({ how }) => how));
      return [...kinds].map((how) => [
        `${bytes / 1024} KiB`,
        how === undefined ? op : `${op}, ${how}`,
        ...PEERS.map((type) => ms(shown.find(({ target }) => target === `lmcache-${type}`))),
        ...ours.flatMap((name) => {
          const row = shown.find((one) => one.target === name && one.how === how);
          return [ms(row), ...PEERS.map((type) => ratio(row?.timesAsFast?.[type]))];
        }),
      ]);
    })
  );
  return [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`)
    .join("\n");
}

function isOurs({ target }: Row): boolean {
  return target.startsWith("kvtier");
}

function ms(row: Row | undefined): string {
  return row === undefined ? "" : row.medianMs.toPrecision(3);
}

function ratio(value: number | undefined): string {
  return value === undefined ? "" : `${value.toFixed(2)}x`;
}
