import { assert, assertEquals } from "@std/assert";
import * as fc from "../../support/fast_check.ts";
import { CircuitBreaker } from "../../../src/l2/circuit_breaker.ts";
import { ManualClock } from "../../../src/testing/manual_clock.ts";
import { runs } from "../../support/runs.ts";

const OPTIONS = { failures: 3, coolDownMs: 100, maxCoolDownMs: 350 };

function open(): { breaker: CircuitBreaker; clock: ManualClock; changes: string[] } {
  const clock = new ManualClock();
  const changes: string[] = [];
  const onChange = (state: string) => void changes.push(state);
  return { breaker: new CircuitBreaker({ ...OPTIONS, clock, onChange }), clock, changes };
}

function enter(breaker: CircuitBreaker): number {
  const pass = breaker.tryEnter();
  assert(pass !== undefined, "the call must be let through");
  return pass;
}

Deno.test("a circuit opens after failures in a row, and lets one probe through after its cool-down", async () => {
  const { breaker, clock, changes } = open();
  for (let i = 0; i < 2; i++) breaker.failure(enter(breaker));
  breaker.success(enter(breaker));
  for (let i = 0; i < 3; i++) {
    assertEquals(breaker.state, "closed");
    breaker.failure(enter(breaker));
  }
  assertEquals([breaker.state, breaker.retryInMs, breaker.openCount], ["open", 100, 1]);
  assertEquals([breaker.canEnter, breaker.tryEnter()], [false, undefined]);
  await clock.advance(99);
  assertEquals([breaker.tryEnter(), breaker.retryInMs], [undefined, 1]);
  await clock.advance(1);
  assertEquals([breaker.state, breaker.canEnter], ["half-open", true]);
  const probe = enter(breaker);
  assertEquals([breaker.canEnter, breaker.tryEnter(), breaker.state], [
    false,
    undefined,
    "half-open",
  ]);
  breaker.success(probe);
  assertEquals([breaker.state, breaker.failuresInARow], ["closed", 0]);
  assertEquals([changes, clock.pendingTimers], [["open", "closed"], 0]);
});

Deno.test("each failed probe doubles the cool-down up to the cap, and a good one resets it", async () => {
  const { breaker, clock } = open();
  breaker.failure(enter(breaker), { trip: true });
  const coolDowns: number[] = [];
  for (let i = 0; i < 4; i++) {
    coolDowns.push(breaker.retryInMs);
    await clock.advance(breaker.retryInMs);
    breaker.failure(enter(breaker));
  }
  assertEquals([...coolDowns, breaker.retryInMs], [100, 200, 350, 350, 350]);
  assertEquals(breaker.openCount, 5);
  await clock.advance(350);
  breaker.success(enter(breaker));
  breaker.failure(enter(breaker), { trip: true });
  assertEquals(breaker.retryInMs, 100);
});

Deno.test("a failure that trips opens the circuit at once", () => {
  const { breaker } = open();
  breaker.failure(enter(breaker), { trip: true });
  assertEquals(breaker.state, "open");
});

Deno.test("calls that began before a circuit opened change nothing afterwards", async () => {
  const { breaker, clock } = open();
  const early = [enter(breaker), enter(breaker), enter(breaker)];
  breaker.failure(enter(breaker), { trip: true });
  for (const pass of early) breaker.success(pass);
  for (const pass of early) breaker.failure(pass, { trip: true });
  assertEquals([breaker.state, breaker.openCount, breaker.retryInMs], ["open", 1, 100]);
  await clock.advance(100);
  const probe = enter(breaker);
  for (const pass of early) breaker.release(pass);
  assertEquals(breaker.tryEnter(), undefined, "the probe is still under way");
  for (const pass of early) breaker.success(pass);
  assertEquals(breaker.state, "half-open");
  breaker.success(probe);
  for (const pass of early) breaker.failure(pass, { trip: true });
  assertEquals(breaker.state, "closed");
});

Deno.test("a probe without a verdict allows another one, and no longer counts", async () => {
  const { breaker, clock, changes } = open();
  breaker.failure(enter(breaker), { trip: true });
  await clock.advance(100);
  const abandoned = enter(breaker);
  breaker.release(abandoned);
  breaker.success(abandoned);
  assertEquals([breaker.state, breaker.canEnter], ["half-open", true]);
  const probe = enter(breaker);
  breaker.success(abandoned);
  assertEquals([breaker.state, breaker.canEnter], ["half-open", false]);
  breaker.failure(probe);
  assertEquals([breaker.retryInMs, changes], [200, ["open", "open"]]);
});

/** Model of a circuit: one object for each phase. */
class Model {
  phase: { kind: "closed" | "open" | "probing"; failures: number; until: number; coolDown: number };
  openings = 0;

  constructor() {
    this.phase = { kind: "closed", failures: 0, until: 0, coolDown: OPTIONS.coolDownMs };
  }

  state(now: number): string {
    if (this.phase.kind === "closed") return "closed";
    return this.phase.kind === "open" && now < this.phase.until ? "open" : "half-open";
  }

  enter(now: number): Model["phase"] | undefined {
    if (this.phase.kind === "probing") return undefined;
    if (this.state(now) === "open") return undefined;
    if (this.phase.kind === "open") this.phase = { ...this.phase, kind: "probing" };
    return this.phase;
  }

  end(began: Model["phase"], outcome: Outcome, now: number): void {
    if (began !== this.phase) return;
    const { kind, coolDown } = this.phase;
    if (outcome === "success") {
      if (kind === "closed") this.phase.failures = 0;
      else this.phase = new Model().phase;
    } else if (outcome === "release") {
      if (kind === "probing") this.phase = { ...this.phase, kind: "open", until: now };
    } else {
      this.phase.failures++;
      const isOver = kind === "probing" || outcome === "trip" ||
        this.phase.failures === OPTIONS.failures;
      if (!isOver) return;
      const next = kind === "closed" ? coolDown : Math.min(2 * coolDown, OPTIONS.maxCoolDownMs);
      this.phase = { kind: "open", failures: 0, until: now + next, coolDown: next };
      this.openings++;
    }
  }
}

type Outcome = "success" | "failure" | "trip" | "release";

Deno.test("a circuit behaves like its model under random calls", async () => {
  const step = fc.oneof(
    fc.record({ what: fc.constant("enter" as const) }),
    fc.record({
      what: fc.constant("end" as const),
      which: fc.nat(5),
      outcome: fc.constantFrom<Outcome>("success", "failure", "failure", "trip", "release"),
    }),
    fc.record({ what: fc.constant("wait" as const), ms: fc.constantFrom(1, 50, 100, 200, 400) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const { breaker, clock, changes } = open();
      const model = new Model();
      const calls: { pass: number; began: Model["phase"] }[] = [];
      let expected = "closed";
      const seen: string[] = [];
      for (const each of steps) {
        if (each.what === "wait") await clock.advance(each.ms);
        if (each.what === "enter") {
          const began = model.enter(clock.now());
          const canEnter = breaker.canEnter;
          const pass = breaker.tryEnter();
          assertEquals([pass !== undefined, canEnter], [began !== undefined, began !== undefined]);
          if (pass !== undefined && began !== undefined) calls.push({ pass, began });
        }
        if (each.what === "end") {
          const [call] = calls.splice(each.which, 1);
          if (call === undefined) continue;
          const openings = model.openings;
          model.end(call.began, each.outcome, clock.now());
          const { pass } = call;
          if (each.outcome === "success") breaker.success(pass);
          else if (each.outcome === "release") breaker.release(pass);
          else breaker.failure(pass, { trip: each.outcome === "trip" });
          if (model.openings > openings) seen.push("open");
          else if (model.phase.kind === "closed" && expected !== "closed") seen.push("closed");
          expected = model.phase.kind;
        }
        const now = clock.now();
        assertEquals(breaker.state, model.state(now));
        const retryInMs = breaker.state === "open" ? model.phase.until - now : 0;
        assertEquals([breaker.retryInMs, breaker.openCount], [retryInMs, model.openings]);
        assertEquals(changes, seen);
      }
    }),
    runs(1000),
  );
});
