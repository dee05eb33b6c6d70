import { assertEquals, assertThrows } from "@std/assert";
import { Listeners } from "../../../src/base/listeners.ts";

Deno.test("Listeners.tell() calls each listener once, in the order in which they came", () => {
  const listeners = new Listeners<(event: string) => void>();
  const heard: string[] = [];
  const first = (event: string): void => void heard.push(`first ${event}`);
  listeners.add(first);
  listeners.add((event) => heard.push(`second ${event}`));
  listeners.add(first);
  assertEquals(listeners.size, 2);
  listeners.tell((listener) => listener("a"));
  assertEquals(heard, ["first a", "second a"]);
});

Deno.test("Listeners.add() returns what removes the listener; delete() and clear() do too", () => {
  const listeners = new Listeners<() => void>();
  const heard: string[] = [];
  const remove = listeners.add(() => heard.push("a"));
  const second = (): void => void heard.push("b");
  listeners.add(second);
  listeners.add(() => heard.push("c"));
  const tell = (): string[] => {
    listeners.tell((listener) => listener());
    return heard.splice(0);
  };
  remove();
  remove();
  assertEquals(tell(), ["b", "c"]);
  listeners.delete(second);
  assertEquals(tell(), ["c"]);
  listeners.clear();
  assertEquals(tell(), []);
});

Deno.test("Listeners: a listener may remove itself while it is told", () => {
  const listeners = new Listeners<() => void>();
  const heard: string[] = [];
  const remove = listeners.add(() => {
    heard.push("once");
    remove();
  });
  listeners.add(() => heard.push("always"));
  for (let i = 0; i < 2; i++) listeners.tell((listener) => listener());
  assertEquals(heard, ["once", "always", "always"]);
});

Deno.test("Listeners.some() asks the listeners", () => {
  const listeners = new Listeners<number>();
  assertEquals(listeners.some(() => true), false);
  listeners.add(1);
  listeners.add(2);
  assertEquals(listeners.some((listener) => listener === 2), true);
  assertEquals(listeners.some((listener) => listener === 3), false);
});

Deno.test("Listeners: the error of one goes to the error handler; the others are told", () => {
  const errors: unknown[] = [];
  const listeners = new Listeners<() => void>((error) => errors.push(error));
  const failure = new Error("listener");
  let told = 0;
  listeners.add(() => {
    throw failure;
  });
  listeners.add(() => told++);
  listeners.tell((listener) => listener());
  assertEquals([errors, told], [[failure], 1]);
});

Deno.test("Listeners.tell() throws the error of a listener if there is no error handler", () => {
  const listeners = new Listeners<() => void>();
  listeners.add(() => {
    throw new Error("listener");
  });
  assertThrows(() => listeners.tell((listener) => listener()), Error, "listener");
});
