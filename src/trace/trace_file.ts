import { failFor } from "../base/config_error.ts";
import { CheckedLines } from "./checked_lines.ts";

/** Block references of all requests at most: what fits into memory with room to spare. */
const MAX_BLOCKS = 50_000_000;
const MAX_REQUESTS = 20_000_000;

/** One request of a trace. */
export interface TraceRequest {
  /** Time of its arrival in milliseconds. */
  readonly timestamp: number;
  /** Tokens of the prompt. */
  readonly inputTokens: number;
  /** Tokens of the answer. */
  readonly outputTokens: number;
  /** Ids of the blocks of the prompt, in order: equal ids have equal prefixes. */
  readonly blocks: readonly number[];
}

/** The requests of a trace, with block ids renumbered from 0. */
export class Trace {
  /** Number of different blocks. */
  uniqueBlocks = 0;
  /** Number of blocks of all requests. */
  blockCount = 0;
  readonly #requests: TraceRequest[] = [];
  readonly #numbers = new Map<number, number>();

  /** The requests in order. */
  get requests(): readonly TraceRequest[] {
    return this.#requests;
  }

  /** Adds a request; returns what is wrong if the trace is too large. */
  add(request: TraceRequest): string | undefined {
    const { blocks } = request;
    if (this.blockCount + blocks.length > MAX_BLOCKS || this.#requests.length >= MAX_REQUESTS) {
      return `at most ${MAX_BLOCKS} blocks and ${MAX_REQUESTS} requests`;
    }
    this.blockCount += blocks.length;
    this.#requests.push({ ...request, blocks: blocks.map((id) => this.#numberOf(id)) });
    return undefined;
  }

  #numberOf(id: number): number {
    const known = this.#numbers.get(id);
    if (known !== undefined) return known;
    this.#numbers.set(id, this.uniqueBlocks);
    return this.uniqueBlocks++;
  }
}

/** A file of requests. */
export interface TraceFile {
  /** Its name, for errors. */
  readonly name: string;
  /** Opens it. */
  readonly open: () => Promise<ReadableStream<BufferSource>>;
}

/**
 * Reads requests as the Mooncake project publishes them: one JSON object a line, with `timestamp`
 * in milliseconds, `input_length` and `output_length` in tokens, and `hash_ids`, one for each block
 * of the prompt.
 *
 * @param limit Requests to read at most.
 * @throws {ConfigError} If a line is something else; names the file and the line.
 */
export async function* readTrace(
  { name, open }: TraceFile,
  limit = Infinity,
): AsyncGenerator<TraceRequest> {
  const lines = new CheckedLines(name);
  let last = 0;
  let count = 0;
  for await (const text of lines.read(await open())) {
    if (text.trim() === "") continue;
    if (count++ >= limit) return;
    const request = parseRequest(text, lines);
    if (request.timestamp < last) {
      lines.fail("timestamp", `at least ${last}, that of the line before`, request.timestamp);
    }
    last = request.timestamp;
    yield request;
  }
}

/** Reads a whole trace into memory. */
export async function loadTrace(file: TraceFile, limit?: number): Promise<Trace> {
  const trace = new Trace();
  for await (const request of readTrace(file, limit)) {
    const excess = trace.add(request);
    if (excess !== undefined) failFor(file.name)("size", excess, "more");
  }
  return trace;
}

function parseRequest(text: string, lines: CheckedLines): TraceRequest {
  const fields = lines.object(text);
  const timestamp = lines.number(fields, "timestamp");
  const inputTokens = lines.count(fields, "input_length");
  const outputTokens = lines.count(fields, "output_length");
  const blocks = fields["hash_ids"];
  if (!Array.isArray(blocks) || !blocks.every(isBlockId)) {
    return lines.fail("hash_ids", "an array of integers of at least 0", blocks);
  }
  if (new Set(blocks).size < blocks.length) {
    return lines.fail("hash_ids", "each block once, because an id stands for a prefix", blocks);
  }
  return { timestamp, inputTokens, outputTokens, blocks };
}

function isBlockId(id: unknown): id is number {
  return Number.isSafeInteger(id) && Number(id) >= 0;
}
