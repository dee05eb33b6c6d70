import { assert, assertEquals, assertMatch } from "@std/assert";
import * as fc from "../../../support/fast_check.ts";
import { type FileLayout, ObjectPaths } from "../../../../adapters/_fs/object_paths.ts";
import { ObjectKey, type ObjectKeyFields } from "../../../../src/keys/object_key.ts";
import { testKey } from "../../../support/objects.ts";
import { anyObjectKey } from "../../../support/any_key.ts";
import { runs } from "../../../support/runs.ts";

const LAYOUTS: readonly { layout: FileLayout; shards: number }[] = [
  { layout: "kvtier", shards: 0 },
  { layout: "kvtier", shards: 1 },
  { layout: "lmcache", shards: 0 },
  { layout: "lmcache", shards: 2 },
];
const lmcache = new ObjectPaths({ basePath: "/base", layout: "lmcache", shards: 0 });
const HASH = "ab".repeat(31) + "cd";

function lmcacheName(fields: Partial<ObjectKeyFields>): string {
  return lmcache.nameOf(
    new ObjectKey({ chunkHash: Uint8Array.fromHex(HASH), model: "m", ...fields }),
  );
}

for (const { layout, shards } of LAYOUTS) {
  const paths = new ObjectPaths({ basePath: "/base", layout, shards });
  const name = `${layout} with ${shards} levels`;

  Deno.test(`${name}: a name spells its key, or is a digest of it`, () => {
    fc.assert(
      fc.property(anyObjectKey, (key) => {
        const named = paths.objectNamed(paths.directoryOf(key), paths.nameOf(key));
        if (named === "key-in-file") {
          assertEquals(paths.nameOf(key), `h-${key.digest.toHex()}.data`);
        } else {
          assertEquals(named !== "no-key" && named?.key.id, key.id);
        }
      }),
      runs(1000),
    );
  });

  Deno.test(`${name}: different keys have different paths`, () => {
    fc.assert(
      fc.property(anyObjectKey, anyObjectKey, (a, b) => {
        assertEquals(paths.pathOf(a) === paths.pathOf(b), a.id === b.id);
      }),
      runs(1000),
    );
  });

  Deno.test(`${name}: every path is a file of at most 255 bytes where it belongs`, () => {
    fc.assert(
      fc.property(anyObjectKey, (key) => {
        const path = paths.pathOf(key);
        const hash = key.chunkHashHex;
        const directories = [
          "",
          `/${hash.slice(0, 2)}`,
          `/${hash.slice(0, 2)}/${hash.slice(2, 4)}`,
        ];
        const directory = `/base${directories[shards]}`;
        assertEquals([paths.directoryOf(key), path], [
          directory,
          `${directory}/${paths.nameOf(key)}`,
        ]);
        const file = path.slice(directory.length + 1);
        assert(!file.includes("/") && !file.includes("\0") && file !== "." && file !== "..");
        assert(new TextEncoder().encode(file).length <= 255);
      }),
      runs(1000),
    );
  });

  Deno.test(`${name}: a file in the wrong directory is no object`, () => {
    const key = testKey(1);
    const other = testKey(2);
    const file = paths.nameOf(key);
    // An LMCache file takes space wherever it is.
    const expected = layout === "lmcache" ? "no-key" : null;
    assertEquals(paths.objectNamed("/elsewhere", file), expected);
    if (shards > 0) assertEquals(paths.objectNamed(paths.directoryOf(other), file), expected);
    if (shards > 0) assertEquals(paths.objectNamed("/base", file), expected);
    assertEquals(typeof paths.objectNamed(paths.directoryOf(key), file), "object");
  });

  Deno.test(`${name}: an invalid name is no object`, () => {
    const name = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom("..", ".", "", "x.data", ".data", "@@@.data", `h-${HASH}.data.tmp`),
      fc.string().map((text) => `${text}@0x00000000@0@${HASH}.data`),
    );
    // File names cannot contain these.
    const text = name.map((file) => file.replaceAll(/[/\0]/g, ""));
    fc.assert(
      fc.property(text, (file) => {
        const named = paths.objectNamed("/base", file);
        // An object is only recognized under the path at which its key is looked up.
        if (named === null || typeof named === "string") return;
        assertEquals(paths.pathOf(named.key), `/base/${file}`);
      }),
      runs(2000),
    );
  });
}

Deno.test("the names of LMCache, byte by byte", () => {
  assertEquals(lmcacheName({ model: "llama", kvRank: 42 }), `llama@0x0000002a@0@${HASH}.data`);
  assertEquals(
    lmcacheName({ model: "meta-llama/Llama-3.1-8B", kvRank: 0x02010100, objectGroup: 10 }),
    `meta-llama-SEP-Llama-3.1-8B@0x02010100@a@${HASH}.data`,
  );
  assertEquals(
    lmcacheName({ model: "a/b/c d%é", kvRank: 0xffffffff, cacheSalt: "tenant 1" }),
    `a-SEP-b-SEP-c d%é@0xffffffff@0@${HASH}@tenant 1.data`,
  );
  assertEquals(
    lmcacheName({ cacheSalt: "tenant%40 語" }),
    `m@0x00000000@0@${HASH}@tenant%40 語.data`,
  );
});

Deno.test("a salt that LMCache refuses is spelled in a name that LMCache ignores", () => {
  for (
    const [cacheSalt, encoded] of [
      ["alice@example.com", "alice%40example.com"],
      ["org/user", "org%2Fuser"],
      ["a\\b%40/語", "a%5Cb%2540%2F語"],
      ["@", "%40"],
    ] as const
  ) {
    const name = lmcacheName({ cacheSalt });
    // LMCache treats names of four or five fields as its own.
    assertEquals(name, `m@0x00000000@0@${HASH}@@${encoded}.data`);
    const named = lmcache.objectNamed("/base", name);
    assertEquals(typeof named === "string" ? named : named?.key.cacheSalt, cacheSalt);
  }
  for (const salt of ["@a", "@a%40b%zz", "@%C3", "@%2f", "@a%2Fb@"]) {
    const named = lmcache.objectNamed("/base", `m@0x00000000@0@${HASH}@${salt}.data`);
    assertEquals(named, "no-key", salt);
  }
});

Deno.test("an ambiguous LMCache name is replaced by a digest", () => {
  const spelled = new ObjectKey({ chunkHash: Uint8Array.fromHex(HASH), model: "a/b" });
  const literal = new ObjectKey({ chunkHash: Uint8Array.fromHex(HASH), model: "a-SEP-b" });
  assertEquals(lmcache.nameOf(spelled), `a-SEP-b@0x00000000@0@${HASH}.data`);
  assertEquals(lmcache.nameOf(literal), `h-${literal.digest.toHex()}.data`);
  const named = lmcache.objectNamed("/base", lmcache.nameOf(spelled));
  assertEquals(typeof named === "string" ? named : named?.key.model, "a/b");
});

Deno.test("an LMCache name with too many bytes is replaced by a digest", () => {
  const fixed = `@0x00000000@0@${HASH}.data`.length;
  const free = 255 - fixed;
  const longest = "m".repeat(free % 2) + "é".repeat(Math.floor(free / 2));
  for (const [model, isSpelled] of [[longest, true], [`${longest}a`, false]] as const) {
    const file = lmcacheName({ model });
    assertEquals(file.startsWith("h-"), !isSpelled, model);
    assertMatch(file, /\.data$/);
  }
  assertMatch(lmcacheName({ model: "m/".repeat(60) }), /^h-[0-9a-f]{64}\.data$/);
});

for (
  const [what, file] of [
    ["no group", `m@0x00000000@${HASH}.data`],
    ["an empty salt", `m@0x00000000@0@${HASH}@.data`],
    ["another suffix", `m@0x00000000@0@${HASH}.bin`],
    ["a temporary suffix", `m@0x00000000@0@${HASH}.data.tmp`],
    ["a rank without 0x", `m@00000000@0@${HASH}.data`],
    ["a short rank", `m@0x0@0@${HASH}.data`],
    ["a rank in capitals", `m@0x0000000A@0@${HASH}.data`],
    ["a hash in capitals", `m@0x00000000@0@${HASH.toUpperCase()}.data`],
    ["half a byte of a hash", `m@0x00000000@0@a72045a8639abe8.data`],
    ["nothing", ""],
    ["a digest that is too short", `h-${HASH.slice(2)}.data`],
  ] as const
) {
  Deno.test(`a file of LMCache with ${what} is not ours`, () => {
    assertEquals(lmcache.objectNamed("/base", file), null);
  });
}

for (
  const [what, file] of [
    ["a hash of 8 bytes", "m@0x01000100@0@a72045a8639abe8f.data"],
    ["a hash of 16 bytes", `m@0x01000100@0@${HASH.slice(32)}.data`],
    ["a world size of 256", `m@0x100000100@0@${HASH}.data`],
    ["a group that is too large", `m@0x00000000@100000000@${HASH}.data`],
    ["too many fields", `m@0x00000000@0@${HASH}@s@t.data`],
    ["no model", `@0x00000000@0@${HASH}.data`],
    ["a control character", `m\n@0x00000000@0@${HASH}.data`],
    ["a control character in the salt", `m@0x00000000@0@${HASH}@s\n.data`],
  ] as const
) {
  Deno.test(`an LMCache file with ${what} has no key, but takes space`, () => {
    assertEquals(lmcache.objectNamed("/base", file), "no-key");
    const kvtier = new ObjectPaths({ basePath: "/base", layout: "kvtier", shards: 0 });
    assertEquals(kvtier.objectNamed("/base", file), null);
  });
}

Deno.test("LMCache's temporary files are recognized by their names", () => {
  const kvtier = new ObjectPaths({ basePath: "/base", layout: "kvtier", shards: 0 });
  const plain = `a-SEP-b@0x01000100@0@${HASH}`;
  for (
    const [name, isApart] of [
      [plain, false],
      [plain, true],
      [`${plain}@tenant.1`, false],
      [`${plain}@tenant.1`, true],
    ] as const
  ) {
    assertEquals(lmcache.isForeignTemporary(`${name}.tmp`, isApart), true);
    assertEquals(lmcache.isForeignTemporary(`${name}.data.tmp`, isApart), true);
    assertEquals(lmcache.isForeignTemporary(`${name}.data`, isApart), isApart);
    for (const other of ["x.tmp", "notes.data", `${name}~`, `${name}.bin`]) {
      assertEquals(lmcache.isForeignTemporary(other, isApart), false, other);
    }
    assertEquals(kvtier.isForeignTemporary(`${name}.tmp`, isApart), false);
  }
});

Deno.test("only directories of two digits at the right level hold objects", () => {
  for (const [shards, level] of [[1, 0], [2, 0], [2, 1]] as const) {
    const paths = new ObjectPaths({ basePath: "/base", layout: "kvtier", shards });
    assert(paths.isShard(level, "a0"));
    for (const name of ["", "a", "abc", "AB", "g0", "..", "tmp"]) {
      assert(!paths.isShard(level, name), name);
    }
    assert(!paths.isShard(shards, "ab"));
  }
});

Deno.test("only a single level of directories can be created in advance", () => {
  const shardsOf = (shards: number) => [
    ...new ObjectPaths({ basePath: "/base", layout: "kvtier", shards }).shards(),
  ];
  assertEquals([shardsOf(0), shardsOf(2)], [[], []]);
  const all = shardsOf(1);
  assertEquals([all.length, new Set(all).size, all[0], all[255]], [
    256,
    256,
    "/base/00",
    "/base/ff",
  ]);
});
