import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { defineL2Adapter } from "../../../src/adapter/contract.ts";
import { adapterHelp, parseAdapterConfig } from "../../../src/adapter/config.ts";
import { ConfigError } from "../../../src/base/config_error.ts";
import { mapAdapter } from "../../support/adapters.ts";

const module = defineL2Adapter({
  type: "shelf",
  summary: "Objects on a shelf.",
  config: {
    path: {
      type: "string",
      required: true,
      check: (path) => path === "" ? "a path that is not empty" : undefined,
      help: "Where the shelf is.",
    },
    order: { type: "string", oneOf: ["lru", "fifo"], default: "lru", help: "Which leave first." },
    boards: { type: "number", integer: true, minimum: 1, maximum: 9, default: 4, help: "Boards." },
    depth: { type: "number", exclusiveMinimum: 0, help: "Depth in metres." },
    even: { type: "number", check: (n) => n % 2 === 0 ? undefined : "an even number", help: "E." },
    locked: { type: "boolean", default: false, help: "Whether it has a door." },
    open: { type: "boolean", check: (v) => v ? undefined : "true", help: "Must be true if given." },
  },
  create: () => mapAdapter(),
});

/** What messages show of values that may be secrets. */
const A_STRING = "a string";
const AN_ARRAY = "an array";

/** The error that a configuration causes; the path is given unless the test gives another. */
function errorOf(config: Record<string, unknown>): ConfigError {
  return assertThrows(() => parseAdapterConfig(module, { path: "p", ...config }), ConfigError);
}

Deno.test("a configuration gets its defaults, and its values are kept", () => {
  assertEquals<unknown>(parseAdapterConfig(module, { type: "shelf", path: "p" }), {
    path: "p",
    order: "lru",
    boards: 4,
    locked: false,
  });
  const given = {
    path: "p",
    order: "fifo",
    boards: 9,
    depth: 0.5,
    even: 2,
    locked: true,
    open: true,
  };
  assertEquals<unknown>(parseAdapterConfig(module, given), given);
});

Deno.test("an undefined value counts as not given", () => {
  const values = parseAdapterConfig(module, { path: "p", boards: undefined, depth: undefined });
  assertEquals([values.boards, values.depth], [4, undefined]);
});

Deno.test("LMCache's keys for every adapter are accepted at its defaults, or refused with the reason", () => {
  for (
    const given of [{ persist_enabled: true }, { shared: false }, { affinity_tag: null }, {
      affinity_tag: "",
    }]
  ) {
    assertEquals(
      parseAdapterConfig(module, { path: "p", ...given }),
      parseAdapterConfig(module, {
        path: "p",
      }),
    );
  }
  for (
    const [key, value, reason] of [
      ["persist_enabled", false, "never removes objects"],
      ["persist_enabled", null, "never removes objects"],
      ["shared", true, "depends on the adapter type"],
      ["affinity_tag", "gpu0", "one device memory"],
    ] as const
  ) {
    const error = errorOf({ [key]: value });
    assertEquals(error.key, key);
    assertStringIncludes(error.expected, reason);
  }
  const own = { ...module, config: { shared: { type: "number", help: "Its own." } } } as const;
  assertEquals(parseAdapterConfig(own, { shared: 3 }), { shared: 3 });
});

Deno.test("null counts as not given where a key is nullable", () => {
  const size = { type: "number", nullable: true, help: "Its size." } as const;
  const own = { ...module, config: { size, with: { ...size, default: 7 } } };
  assertEquals<unknown>(parseAdapterConfig(own, { size: null, with: null }), { with: 7 });
});

Deno.test("a configuration is not changed", () => {
  const given = Object.freeze({ path: "p" });
  parseAdapterConfig(module, given);
  assertEquals(given, { path: "p" });
});

for (
  const [what, config, key, expected, received] of [
    [
      "an unknown key",
      { pathh: "p" },
      "pathh",
      "the key path",
      "pathh",
    ],
    [
      "an unknown key like no other",
      { weight: 1 },
      "weight",
      "one of the keys type, path, order, boards, depth, even, locked, open",
      "weight",
    ],
    ["a key that objects inherit", { toString: "p" }, "toString", "one of the keys", "toString"],
    ["a missing key", { path: undefined }, "path", "string", "nothing"],
    ["a number as string", { path: 7 }, "path", "string", 7],
    ["null as string", { path: null }, "path", "string", null],
    ["a string of the wrong kind", { path: "" }, "path", "a path that is not empty", A_STRING],
    [
      "a string out of a choice",
      { order: "LRU" },
      "order",
      "one of lru, fifo, perhaps lru",
      A_STRING,
    ],
    ["a number out of a choice", { order: 1 }, "order", "one of lru, fifo", 1],
    [
      "a string as number",
      { boards: "4" },
      "boards",
      "integer from 1 to 9",
      A_STRING,
    ],
    ["null as number", { boards: null }, "boards", "integer", null],
    ["a boolean as number", { boards: true }, "boards", "integer", true],
    ["a list as number", { boards: [4] }, "boards", "integer", AN_ARRAY],
    ["NaN", { boards: NaN }, "boards", "integer", NaN],
    ["NaN without bounds", { even: NaN }, "even", "number", NaN],
    ["infinity", { depth: Infinity }, "depth", "number greater than 0", Infinity],
    ["a number too small", { boards: 0 }, "boards", "integer from 1 to 9", 0],
    ["a number too large", { boards: 10 }, "boards", "from 1 to 9", 10],
    ["a fraction", { boards: 1.5 }, "boards", "integer", 1.5],
    ["the bound that is excluded", { depth: 0 }, "depth", "number greater than 0", 0],
    ["a number of the wrong kind", { even: 3 }, "even", "an even number", 3],
    ["a number as boolean", { locked: 1 }, "locked", "boolean", 1],
    ["a string as boolean", { locked: "false" }, "locked", "boolean", A_STRING],
    ["null as boolean", { locked: null }, "locked", "boolean", null],
    ["a boolean of the wrong kind", { open: false }, "open", "true", false],
  ] as const
) {
  Deno.test(`a configuration with ${what} is refused`, () => {
    const error = errorOf(config);
    assertEquals(error.name, "ConfigError");
    assertEquals(error.subject, "shelf adapter");
    assertEquals(error.key, key);
    assertEquals(error.received, received);
    assertStringIncludes(error.expected, expected);
    const isName = typeof received === "string" && received !== A_STRING && received !== AN_ARRAY;
    const shown = isName ? `"${received}"` : String(received);
    assertEquals(
      error.message,
      `shelf adapter: ${key}: expected ${error.expected}: received ${shown}`,
    );
  });
}

Deno.test("an error shows only the type of a value of a wrong type", () => {
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const values = [circular, { password: "hunter2" }, ["hunter2"], 1n, Symbol("hunter2"), () => 1];
  assertEquals(values.map((boards) => errorOf({ boards }).received), [
    "an object with self",
    "an object with password",
    "an array",
    "a bigint",
    "a symbol",
    "a function",
  ]);
});

Deno.test("a secret is not shown when it is refused", () => {
  const module = {
    type: "safe",
    summary: "Made by a test.",
    config: {
      code: {
        type: "string",
        secret: true,
        help: "It opens it.",
        check: () => "another one",
      },
    },
  } as const;
  for (const code of [1234, "1234", ["1234"]]) {
    const error = assertThrows(() => parseAdapterConfig(module, { code }), ConfigError);
    assertEquals([error.key, JSON.stringify(error).includes("1234")], ["code", false]);
    assertEquals(error.message.includes("1234"), false);
  }
});

Deno.test("a default must satisfy its own bounds", () => {
  const config = { n: { type: "number", maximum: 1, default: 2, help: "N." } } as const;
  const broken = { type: "broken", summary: "S.", config };
  assertThrows(() => parseAdapterConfig(broken, {}), ConfigError, "of at most 1");
});

const nested = defineL2Adapter({
  type: "cupboard",
  summary: "Objects in a cupboard.",
  config: {
    doors: {
      type: "object",
      help: "Its doors.",
      fields: {
        count: { type: "number", integer: true, minimum: 1, default: 2, help: "How many." },
        colour: { type: "string", required: true, help: "Their colour." },
        handles: {
          type: "object",
          help: "Their handles.",
          fields: { are_round: { type: "boolean", default: true, help: "Whether they turn." } },
        },
      },
    },
  },
  create: () => mapAdapter(),
});

Deno.test("keys of an object get their defaults; an object that is not given has none", () => {
  assertEquals<unknown>(parseAdapterConfig(nested, {}), {});
  assertEquals<unknown>(parseAdapterConfig(nested, { doors: undefined }), {});
  assertEquals<unknown>(
    parseAdapterConfig(nested, { doors: { colour: "red", handles: {} } }),
    { doors: { count: 2, colour: "red", handles: { are_round: true } } },
  );
  const given = { doors: { colour: "red", count: 3, handles: { are_round: false } } };
  assertEquals<unknown>(parseAdapterConfig(nested, given), given);
});

for (
  const [what, doors, key, expected, received] of [
    ["no object", 1, "doors", "object with the keys count, colour, handles", 1],
    ["null", null, "doors", "object with the keys", null],
    ["an array", [], "doors", "object with the keys", "an empty array"],
    ["an unknown key", { colour: "red", size: 1 }, "doors.size", "count, colour, handles", "size"],
    ["the key of the type", { colour: "red", type: "x" }, "doors.type", "count, colour", "type"],
    ["a required key left out", {}, "doors.colour", "string", "nothing"],
    ["a value of a wrong type", { colour: 1 }, "doors.colour", "string", 1],
    ["a value out of range", { colour: "red", count: 0 }, "doors.count", "of at least 1", 0],
    [
      "an unknown key, deeper",
      { colour: "red", handles: { size: 1 } },
      "doors.handles.size",
      "one of the keys are_round",
      "size",
    ],
    [
      "a wrong value, deeper",
      { colour: "red", handles: { are_round: 1 } },
      "doors.handles.are_round",
      "boolean",
      1,
    ],
  ] as const
) {
  Deno.test(`an object in a configuration that is or has ${what} is refused`, () => {
    const error = assertThrows(() => parseAdapterConfig(nested, { doors }), ConfigError);
    assertEquals<unknown>([error.key, error.received], [key, received]);
    assertStringIncludes(error.expected, expected);
  });
}

Deno.test("help shows the keys of an object below it, indented", () => {
  assertEquals(
    adapterHelp(nested),
    `cupboard: Objects in a cupboard.
  doors: object with the keys count, colour, handles
      Its doors.
      count: integer of at least 1, default 2
          How many.
      colour: string, required
          Their colour.
      handles: object with the keys are_round
          Their handles.
          are_round: boolean, default true
              Whether they turn.`,
  );
});

Deno.test("help names the adapter, and each key with type, bounds, default and purpose", () => {
  assertEquals(
    adapterHelp(module),
    `shelf: Objects on a shelf.
  path: string, required
      Where the shelf is.
  order: one of lru, fifo, default "lru"
      Which leave first.
  boards: integer from 1 to 9, default 4
      Boards.
  depth: number greater than 0
      Depth in metres.
  even: number
      E.
  locked: boolean, default false
      Whether it has a door.
  open: boolean
      Must be true if given.`,
  );
  assertEquals(
    adapterHelp({ type: "bare", summary: "Bare.", config: {} }),
    "bare: Bare.\n  no keys",
  );
});

Deno.test("a list of numbers is checked number by number", () => {
  const list = defineL2Adapter({
    type: "list",
    summary: "Has a list.",
    config: {
      sizes: { type: "numbers", integer: true, minimum: 1, maximum: 3, default: [], help: "S." },
      even: {
        type: "numbers",
        check: (n) => n.length % 2 ? "an even count" : undefined,
        help: "E.",
      },
    },
    create: () => mapAdapter(),
  });
  assertEquals<unknown>(parseAdapterConfig(list, {}), { sizes: [] });
  assertEquals<unknown>(parseAdapterConfig(list, { sizes: [1, 3], even: [0.5, -1] }), {
    sizes: [1, 3],
    even: [0.5, -1],
  });
  const range = "list of integers from 1 to 3";
  for (const sizes of [1, "1", {}, [0], [4], [1.5], ["1"], [1, null], [NaN], [true]]) {
    const error = assertThrows(() => parseAdapterConfig(list, { sizes }), ConfigError);
    assertEquals([error.key, error.expected], ["sizes", range]);
  }
  assertThrows(() => parseAdapterConfig(list, { even: [1] }), ConfigError, "an even count");
});
