import { assert, assertEquals, assertMatch } from "@std/assert";

/** One sample of a page in the text format of Prometheus. */
export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const LABEL = String.raw`[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*"`;
const SAMPLE = new RegExp(`^(${NAME})(?:\\{(${LABEL}(?:,${LABEL})*)\\})? (\\S+)$`);

/** A metric with its samples. */
interface Family {
  readonly type: string;
  readonly samples: Sample[];
}

/**
 * Parses a page strictly: each metric has its help and its type once, before its samples; names,
 * labels and values are well-formed; no sample is there twice; buckets add up.
 */
export function parsePrometheus(page: string): Map<string, Family> {
  assert(page.endsWith("\n") && !page.includes("\n\n"), "every line ends with a newline");
  const families = new Map<string, Family>();
  const seen = new Set<string>();
  let help = "";
  let current = "";
  for (const line of page.slice(0, -1).split("\n")) {
    if (line.startsWith("# HELP ")) {
      help = /^# HELP (\S+) \S/.exec(line)?.[1] ?? "";
    } else if (line.startsWith("#")) {
      const [, name = "", type = ""] = /^# TYPE (\S+) (counter|gauge|histogram)$/.exec(line) ?? [];
      assertEquals(name, help, line);
      assert(!families.has(name), `${name} begins twice`);
      families.set(current = name, { type, samples: [] });
    } else {
      const { name, labels, value } = parseSample(line);
      const { type, samples } = families.get(current) ?? { type: "", samples: [] };
      const isOwn = type === "histogram"
        ? ["_bucket", "_sum", "_count"].includes(name.slice(current.length)) &&
          name.startsWith(current)
        : name === current;
      assert(isOwn, `${line} follows ${current}`);
      const series = `${name} ${JSON.stringify(Object.entries(labels).sort())}`;
      assert(!seen.has(series), `twice: ${line}`);
      seen.add(series);
      samples.push({ name, labels, value });
    }
  }
  for (const [name, { type, samples }] of families) {
    assert(samples.length > 0, `${name} has no samples`);
    assertEquals(name.endsWith("_total"), type === "counter", name);
    if (type === "histogram") checkBuckets(name, samples);
  }
  return families;
}

function parseSample(line: string): Sample {
  assertMatch(line, SAMPLE);
  const [, name = "", list = "", value = ""] = SAMPLE.exec(line) ?? [];
  const labels: Record<string, string> = {};
  for (const [, label = "", text = ""] of list.matchAll(/([^=,]+)="((?:[^"\\]|\\.)*)"/g)) {
    assert(!(label in labels), line);
    labels[label] = text.replace(/\\(.)/g, (_, escape) => escape === "n" ? "\n" : escape);
  }
  assert(value !== "" && !Number.isNaN(Number(value)), line);
  return { name, labels, value: Number(value) };
}

function checkBuckets(name: string, samples: readonly Sample[]): void {
  const series = Map.groupBy(samples, ({ labels: { le: _, ...own } }) => JSON.stringify(own));
  for (const each of series.values()) {
    const buckets = each.filter((sample) => sample.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels: { le = "" } }) => le === "+Inf" ? Infinity : Number(le));
    assertEquals(bounds, bounds.toSorted((a, b) => a - b));
    assertEquals(bounds.at(-1), Infinity);
    const counts = buckets.map(({ value }) => value);
    assertEquals(counts, counts.toSorted((a, b) => a - b));
    const count = each.find((sample) => sample.name === `${name}_count`);
    assertEquals(count?.value, counts.at(-1));
    assert(each.some((sample) => sample.name === `${name}_sum`));
  }
}
