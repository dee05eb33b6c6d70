import { type Clock, within } from "../../src/base/clock.ts";
import { messageOf } from "../_shared/errno.ts";
import { type FrameHead, FrameReader, FrameWriter } from "./frames.ts";
import {
  type Answers,
  decodeError,
  type ErrorMessage,
  type PluginReply,
  type Reports,
  type Request,
} from "./messages.ts";

/**
 * Time within which the process must answer that it has received an abort, in milliseconds, if no
 * bytes of objects are under way.
 */
const PATIENCE_MS = 1_000;
/** Slowest rate at which the bytes of objects pass, in bytes a millisecond. */
const MIN_BYTES_PER_MS = 40_000;
/** A pause of this process counts as one step of its patience, in milliseconds. */
const STEP_MS = 100;
/** Largest header of an answer, without its objects: parsing it must not block this process. */
const MAX_HEADER_BYTES = 4 * 2 ** 20;
/** Largest part of a header that concerns one object. */
const MAX_HEADER_BYTES_PER_OBJECT = 64;
/** Max messages that wait to be written before uses are dropped. */
const MAX_PENDING = 64;

/** An error that the process has answered with. */
export class RemoteError extends Error {
  /** Name of the class. */
  override readonly name = "RemoteError";
  /** System error code. */
  readonly code: string | undefined;

  /** Details of the error, checked. */
  readonly details: ErrorMessage;

  constructor(answer: unknown) {
    const details = decodeError(answer);
    super(details.message);
    this.details = details;
    this.code = details.code;
  }
}

/** Options of an {@linkcode IsolatedProcess}. */
export interface IsolatedProcessOptions {
  readonly command: Deno.Command;
  readonly clock: Clock;
  /** Receives what the adapter reports. */
  readonly onReports: (reports: Reports) => void;
  /** Called when the process has ended or was killed, unless it was closed. */
  readonly onDeath: (reason: Error) => void;
}

/** Bytes of a request and of its answer, and what ends it. */
export interface AskOptions {
  /** Bytes that follow the request. */
  readonly parts?: readonly Uint8Array[];
  /** Where the bytes that follow the answer belong; they must be that many. */
  readonly into?: (value: Answers["load"]) => readonly Uint8Array[];
  /** Tells the process that the caller has stopped waiting. */
  readonly signal?: AbortSignal;
}

interface PendingCall {
  readonly request: Request;
  readonly resolve: (value: unknown) => void;
  readonly reject: (cause: Error) => void;
  readonly into: AskOptions["into"];
}

/**
 * A process that answers requests. Whatever it does, it cannot block, flood or crash this one: it is
 * read only while an answer is due, and killed as soon as it breaks the protocol, or does not react
 * to an abort.
 */
export class IsolatedProcess {
  readonly #child: Deno.ChildProcess;
  readonly #options: IsolatedProcessOptions;
  readonly #writer: FrameWriter;
  readonly #reader: FrameReader;
  readonly #calls = new Map<number, PendingCall>();
  readonly #ended: Promise<void>;
  #death: Error | undefined;
  #isReading = false;
  #lastId = 0;

  /** Starts the process, which does not keep this one alive while it is idle. */
  constructor(options: IsolatedProcessOptions) {
    this.#options = options;
    this.#child = options.command.spawn();
    this.#child.unref();
    this.#writer = new FrameWriter(this.#child.stdin);
    this.#reader = new FrameReader(this.#child.stdout);
    this.#ended = this.#child.status.then(({ code, signal }) => {
      const how = signal === null ? `with exit code ${code}` : `by ${signal}`;
      this.#die(`The process of the plugin ended ${how}`);
    });
  }

  /** Why it cannot be asked any more; `undefined` while it can. */
  get death(): Error | undefined {
    return this.#death;
  }

  /** Sends a message that has no answer. Uses are not sent to a process that does not read. */
  tell(request: Request): void {
    if (this.#death !== undefined) return;
    if (request.op === "touch" && this.#writer.pending > MAX_PENDING) return;
    void this.#write({ request });
  }

  /**
   * Sends a request; resolves to the answer. Settles only when the process has answered, or is
   * dead.
   *
   * @throws {RemoteError} If the process answered with an error.
   * @throws {Error} If the process is dead, or the request cannot be encoded.
   */
  ask<Op extends keyof Answers>(
    request: Request & { readonly op: Op },
    options?: AskOptions,
  ): Promise<Answers[Op]> {
    return this.#ask(request, options) as Promise<Answers[Op]>;
  }

  /** Asks it to close its adapter, for at most `ms` milliseconds, and ends it. */
  async close(ms: number): Promise<void> {
    if (this.#death === undefined && ms > 0) {
      await within(this.#options.clock, this.#ask({ op: "close" }).catch(() => {}), ms);
    }
    this.#end(new Error("The adapter is closed"));
    this.#kill();
    this.#child.ref();
    await this.#ended;
  }

  async #ask(request: Request, options: AskOptions = {}): Promise<unknown> {
    const { parts, into, signal } = options;
    if (this.#death !== undefined) throw this.#death;
    const id = ++this.#lastId;
    const written = this.#write({ id, request }, parts);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#calls.set(id, { request, resolve, reject, into });
    this.#child.ref();
    const abort = (): void => void this.#abort(id);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
    void this.#read();
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", abort);
      // The parts are in use until they are written.
      await written;
      if (this.#calls.size === 0 && this.#death === undefined) this.#child.unref();
    }
  }

  #write(message: unknown, parts?: readonly Uint8Array[]): Promise<void> {
    return this.#writer.write(message, parts).catch(() => {
      // The process has ended, or will: its end is what calls in progress reject with.
    });
  }

  /** Passes an abort on. A process that does not confirm it is stuck. */
  async #abort(call: number): Promise<void> {
    const ms = PATIENCE_MS + Math.ceil(this.#bytesUnderWay() / MIN_BYTES_PER_MS);
    let isConfirmed = false;
    const confirmed = this.#ask({ op: "abort", call }).catch(() => {})
      .finally(() => isConfirmed = true);
    for (let waitedMs = 0; waitedMs < ms && !isConfirmed; waitedMs += STEP_MS) {
      await within(this.#options.clock, confirmed, STEP_MS);
    }
    if (!isConfirmed) this.#breakOff(`it did not react for ${ms} ms`);
  }

  /** Bytes of objects that may have to pass before the answer to a new request. */
  #bytesUnderWay(): number {
    return this.#calls.values().reduce(
      (sum, { request }) => "sizes" in request ? request.sizes.reduce((a, b) => a + b, sum) : sum,
      0,
    );
  }

  #maxHeaderBytes(): number {
    const objects = this.#calls.values().reduce(
      (sum, { request }) => "keys" in request ? sum + request.keys.length : sum,
      0,
    );
    return MAX_HEADER_BYTES + objects * MAX_HEADER_BYTES_PER_OBJECT;
  }

  /** Reads answers while any is due. */
  async #read(): Promise<void> {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      while (this.#calls.size > 0 && this.#death === undefined) {
        const head = await this.#reader.next(() => this.#maxHeaderBytes());
        if (head === undefined) return this.#kill();
        await this.#settle(head);
      }
    } catch (cause) {
      const hint = "nothing but its answers may appear on its standard output";
      this.#breakOff(`${messageOf(cause)} (${hint})`);
    } finally {
      this.#isReading = false;
    }
  }

  async #settle({ header, bodyBytes }: FrameHead): Promise<void> {
    const { id, value, error, reports } = header as PluginReply;
    const call = this.#calls.get(id);
    if (call === undefined) throw new Error("it answered what was not asked");
    const targets = error === undefined ? call.into?.(value as Answers["load"]) ?? [] : [];
    const expected = targets.reduce((sum, { byteLength }) => sum + byteLength, 0);
    if (bodyBytes !== expected) throw new Error(`${bodyBytes} bytes instead of ${expected}`);
    for (const target of targets) {
      if (!await this.#reader.read(target)) throw new Error("it ended within an answer");
    }
    // What throws up to here kills the process, which rejects the call.
    if (reports !== undefined) this.#options.onReports(reports);
    this.#calls.delete(id);
    if (error === undefined) call.resolve(value);
    else call.reject(new RemoteError(error));
  }

  /** Kills a process that breaks the protocol. */
  #breakOff(cause: string): void {
    this.#kill();
    this.#die(`The process of the plugin was killed: ${cause}`);
  }

  #kill(): void {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
  }

  #die(reason: string): void {
    if (this.#death !== undefined) return;
    const death = new Error(reason);
    this.#end(death);
    this.#options.onDeath(death);
  }

  /** Rejects calls in progress, and those to come. */
  #end(reason: Error): void {
    this.#death ??= reason;
    void this.#reader.cancel();
    void this.#writer.close();
    for (const { reject } of this.#calls.values()) reject(reason);
    this.#calls.clear();
  }
}
