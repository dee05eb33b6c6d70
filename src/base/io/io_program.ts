/** Program of a worker thread for file work: takes tasks of batches until none is left. */
import { setImmediate } from "node:timers";
import { parentPort, workerData } from "node:worker_threads";
import { BatchState } from "./batch_state.ts";
import { sentError } from "./file_error.ts";
import { IO_KINDS } from "./io_batch.ts";
import { BatchWork } from "./io_work.ts";
import {
  Control,
  type IoReply,
  type IoRequest,
  type TaskError,
  type ThreadData,
} from "./io_messages.ts";

const { thread, control } = workerData as ThreadData;
const port = parentPort as NonNullable<typeof parentPort>;

/** A batch that this thread works on. */
interface Running {
  readonly id: number;
  readonly rank: number;
  readonly work: BatchWork;
  readonly state: BatchState;
  readonly errors: TaskError[];
}

/** The most urgent first, otherwise in the order of arrival. */
const running: Running[] = [];
let received = 0;
let isPumping = false;

port.on("message", ({ id, batch, state }: IoRequest) => {
  received++;
  const rank = IO_KINDS.indexOf(batch.kind);
  const place = running.findIndex((other) => other.rank > rank);
  running.splice(place < 0 ? running.length : place, 0, {
    id,
    rank,
    work: new BatchWork(batch),
    state: new BatchState(state),
    errors: [],
  });
  if (isPumping) return;
  pump();
});

/** Works until nothing is left, or a batch has arrived that may be more urgent. */
function pump(): void {
  for (let next = running[0]; next !== undefined; next = running[0]) {
    isPumping = true;
    if (!step(next)) {
      running.shift();
      port.postMessage({ id: next.id, errors: next.errors } satisfies IoReply);
    } else if (Atomics.load(control, Control.arrivals) !== received) {
      // Messages arrive between two turns of the event loop.
      setImmediate(pump);
      return;
    }
  }
  isPumping = false;
}

/** Does one task of a batch; returns whether there was one. */
function step({ work, state, errors }: Running): boolean {
  // The host lets a thread run on for a while after it was terminated.
  if (Atomics.load(control, Control.isEnded) === 1) return false;
  const index = state.take(thread);
  if (index === undefined) return false;
  const { status, checksum, error } = work.run(index);
  if (error !== undefined) errors.push({ index, ...sentError(error) });
  state.finish(index, status, checksum);
  return true;
}

port.postMessage("ready");
