import { SimChats } from "./sim_chats.ts";
import { SimEvening } from "./sim_evening.ts";
import { SimRandom } from "./sim_random.ts";
import { SimTroubles } from "./sim_troubles.ts";
import { SimWorld } from "./sim_world.ts";

export { SimError } from "./sim_world.ts";

const SECOND = 1000;
const HOUR = 3600 * SECOND;
const DAY = 24 * HOUR;
/** Time that a simulation has to become idle after its day. */
const EVENING = 12 * HOUR;
const TURNS_OF_A_BURST = 10;

/** Options of a simulation. */
export interface SimOptions {
  /** Seed that determines everything. */
  readonly seed: number;
  /** Turns of chats in the day. @default {150} */
  readonly requests?: number;
  /** Called with each event. */
  readonly print?: (line: string) => void;
}

/** Result of a simulated day. */
export interface SimReport {
  readonly seed: number;
  /** Digest of everything observable with simulated times: equal for equal options. */
  readonly digest: string;
  /** Number of events by name. */
  readonly counts: Readonly<Record<string, number>>;
}

/**
 * Simulates a day of a cache with misbehaving adapters, and checks throughout that it keeps its
 * promises. Equal options give equal days.
 *
 * @throws {SimError} If it does not.
 */
export async function simulate(options: SimOptions): Promise<SimReport> {
  const { seed, requests, print } = options;
  const random = new SimRandom(seed);
  const size = requests === undefined ? "" : ` --requests ${requests}`;
  const replay = `deno task test:sim --seed ${seed}${size}`;
  const world = new SimWorld({ random, replay, ...(print === undefined ? {} : { print }) });
  const onRejection = (event: PromiseRejectionEvent): void => {
    event.preventDefault();
    world.fail("unhandled rejection", event.reason);
  };
  globalThis.addEventListener("unhandledrejection", onRejection);
  try {
    world.spawn(() => liveThrough(world, random, requests ?? 150));
    await letTimePass(world);
  } finally {
    globalThis.removeEventListener("unhandledrejection", onRejection);
  }
  return { seed, digest: world.trace.digest(), counts: world.trace.counts };
}

/** Bursts of chats over a day, and what comes after. */
async function liveThrough(world: SimWorld, random: SimRandom, requests: number): Promise<void> {
  const chats = new SimChats(world);
  const troubles = new SimTroubles(world, chats);
  await world.open(world.stores.slice(0, 3));
  const bursts = Math.ceil(requests / TURNS_OF_A_BURST);
  const times = Array.from({ length: bursts }, () => random.next() * DAY).sort((a, b) => a - b);
  const day: Promise<void>[] = [];
  for (const [i, at] of times.entries()) {
    await world.clock.sleep(at - world.clock.now());
    const turns = Math.min(TURNS_OF_A_BURST, requests - i * TURNS_OF_A_BURST);
    day.push(burst(world, chats, troubles, turns, random.fork()));
  }
  await Promise.all(day);
  await new SimEvening(world, chats, troubles, random).spend();
}

/** Some chats at about the same time, possibly with some operations among them. */
async function burst(
  world: SimWorld,
  chats: SimChats,
  troubles: SimTroubles,
  turns: number,
  random: SimRandom,
): Promise<void> {
  const work: Promise<void>[] = [];
  const widthMs = random.magnitude(SECOND, 60 * SECOND);
  for (let left = turns; left > 0;) {
    const own = Math.min(left, 1 + random.below(5));
    left -= own;
    work.push(world.spawn(() => chats.chat(own, widthMs, random.fork())));
  }
  for (let left = random.below(4); left > 0; left--) {
    const own = random.fork();
    work.push(world.spawn(async () => {
      await world.clock.sleep(own.next() * widthMs);
      await troubles.make(own);
    }));
  }
  await Promise.all(work);
}

/** Runs scheduled callbacks until nothing is left. */
async function letTimePass(world: SimWorld): Promise<void> {
  const { clock } = world;
  while (world.tasks > 0 && world.failure === undefined) {
    await clock.settle();
    const real = world.takeReal();
    if (real !== undefined) await real;
    else if (clock.now() > DAY + EVENING) world.fail(`${world.tasks} tasks do not end`);
    else if (world.tasks > 0 && !await clock.step()) {
      world.fail(`nothing moves any more, and ${world.tasks} tasks wait`);
    }
  }
  await clock.settle();
  if (world.failure !== undefined) throw world.failure;
}
