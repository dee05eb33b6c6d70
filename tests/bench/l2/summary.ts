import type { Samples } from "./measure.ts";
import type { Row } from "./row.ts";
import type { Shape } from "./shape.ts";
import { median, percentile } from "../statistics.ts";

/** The rows of one shape. Of targets with one name, the fastest counts, for each operation. */
export function summarise(samples: readonly Samples[], shape: Shape): Row[] {
  const best = new Map<string, Samples>();
  for (const one of samples) {
    const id = [one.target.name, one.op, one.how].join();
    const other = best.get(id);
    if (other === undefined || median(one.ms) < median(other.ms)) best.set(id, one);
  }
  const rows = [...best.values()].map((one) => rowOf(one, shape));
  return rows.map((row): Row => {
    const limitCalled = (name: string): Row | undefined =>
      rows.find(({ target, op }) => target === name && op === row.op);
    const limit = limitCalled(`limit-${row.target.replace("kvtier-", "")}`) ?? limitCalled("limit");
    const isLimit = /^limit(?!-aligned)/.test(row.target);
    const isCompared = limit !== undefined && !isLimit && row.op !== "lookup";
    return isCompared ? { ...row, ofLimit: limit.medianMs / row.medianMs } : row;
  });
}

function rowOf({ target, op, how, ms, done, of }: Samples, shape: Shape): Row {
  const { objectBytes, numKeys, inFlight } = shape;
  const keys = numKeys * inFlight;
  const medianMs = median(ms);
  return {
    target: target.name,
    objectBytes,
    keys,
    op,
    ...(how === undefined ? {} : { how }),
    rounds: ms.length,
    medianMs,
    minMs: Math.min(...ms),
    maxMs: Math.max(...ms),
    p99Ms: percentile(ms, 0.99),
    ...(op === "lookup" ? {} : { gbps: keys * objectBytes / medianMs / 1e6 }),
    usPerKey: 1000 * medianMs / keys,
    success: { done, of },
    ...(target.concurrency === undefined ? {} : { concurrency: target.concurrency }),
  };
}
