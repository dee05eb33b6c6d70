import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import fs from "../../../adapters/fs.ts";
import { ConfigError } from "../../../src/adapter/contract.ts";
import { parseAdapterConfig } from "../../../src/adapter/config.ts";
import { runChild } from "../../support/child.ts";
import { openFs } from "../../support/fs_adapter.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

/** Valid edge cases for each option. */
const GOOD: Record<string, readonly unknown[]> = {
  "base_path": ["x", "a b", "/abs", "./x", "..", "./~x", "C:/kv"],
  "relative_tmp_dir": ["tmp", "a/b", "./a", "a/../b", "", ".", "./", null],
  durability: ["none", "file", "full"],
  "max_capacity_gb": [0, 1e-6, 10, 2 ** 22],
  eviction: [{}, { eviction_policy: "noop" }, { trigger_watermark: 1, eviction_ratio: 1 }],
  "disk_high_watermark": [0.001, 1],
  "disk_min_free_gb": [0, 2 ** 22],
  "recover_on_start": [true, false],
  "use_odirect": [true, false],
  "io_concurrency": [1, 24],
  "io_workers": [0, 1, 16],
  "read_max_bytes_in_flight": [0, 1, 2 ** 40],
  "read_ahead_size": [1, 2 ** 20, null],
  "shard_dirs": [true, false],
  "file_layout": ["kvtier", "lmcache"],
  "accept_unsealed": [true, false],
  checksum: ["none", "crc32"],
  "pad_files": [true, false],
  "allow_shared_group": [true, false],
  "allow_foreign_owner": [true, false],
};

/** Invalid values, each with the key that the error must name. */
const WRONG: Record<string, readonly unknown[]> = {
  "base_path": ["", "  ", 1, null, true, ["x"], "~", "~/kv", "$HOME/kv", "${HOME}/kv", "file:///x"],
  "relative_tmp_dir": [" ", "..", "/abs", "../x", "a/../..", "~/x", "$X", 1],
  durability: ["always", "", 1, null, "None"],
  "max_capacity_gb": [-1, -0.001, 2 ** 22 + 1, Infinity, NaN, "10", null],
  "disk_high_watermark": [0, -0.1, 1.01, "0.9", null, NaN],
  "disk_min_free_gb": [-1, 2 ** 22 + 1, "1", null],
  "recover_on_start": [0, 1, "true", null],
  "use_odirect": [0, "false", null],
  "io_concurrency": [0, 25, 1.5, -1, "8", null],
  "io_workers": [-1, 0.5, 1e9, "2", null],
  "read_max_bytes_in_flight": [-1, 0.5, 2 ** 60, "1", null],
  "read_ahead_size": [0, -1, 1.5, "1"],
  "shard_dirs": [1, "true", null],
  "file_layout": ["raw", "", 1, null],
  "accept_unsealed": [1, "true", null],
  checksum: ["crc32c", "", 0, null, true],
  "pad_files": [1, "true", null],
  "allow_shared_group": [1, "true", null],
  "allow_foreign_owner": [1, "true", null],
};

const WRONG_EVICTION: readonly (readonly [unknown, string])[] = [
  ["LRU", "eviction"],
  [null, "eviction"],
  [[], "eviction"],
  [{ eviction_policy: "FIFO" }, "eviction.eviction_policy"],
  [{ eviction_policy: "ARC" }, "eviction.eviction_policy"],
  [{ eviction_policy: "IsolatedLRU" }, "eviction.eviction_policy"],
  [{ trigger_watermark: 0 }, "eviction.trigger_watermark"],
  [{ trigger_watermark: 1.1 }, "eviction.trigger_watermark"],
  [{ eviction_ratio: 0 }, "eviction.eviction_ratio"],
  [{ eviction_ratio: "0.5" }, "eviction.eviction_ratio"],
  [{ max_capacity_gb: 1 }, "eviction.max_capacity_gb"],
];

function errorOf(config: Record<string, unknown>): ConfigError {
  return assertThrows(() => parseAdapterConfig(fs, config), ConfigError);
}

Deno.test("every option is tried here", () => {
  const declared = Object.keys(fs.config).sort();
  assertEquals(Object.keys(GOOD).sort(), declared);
  assertEquals([...Object.keys(WRONG), "eviction"].sort(), declared);
});

for (const [key, values] of Object.entries(GOOD)) {
  Deno.test(`${key} accepts valid values`, () => {
    for (const value of values) {
      const parsed: Record<string, unknown> = parseAdapterConfig(fs, {
        base_path: "x",
        [key]: value,
      });
      if (key !== "eviction") assertEquals(parsed[key], value ?? undefined);
    }
  });
}

for (const [key, values] of Object.entries(WRONG)) {
  Deno.test(`${key} refuses invalid values, and the error names it`, () => {
    for (const value of values) {
      const error = errorOf({ base_path: "x", [key]: value });
      assertEquals([error.subject, error.key], ["fs adapter", key], `${value}`);
      assertEquals(error.message.split("\n").length, 1);
    }
  });
}

Deno.test("eviction refuses invalid values, and the error names the key", () => {
  for (const [eviction, key] of WRONG_EVICTION) {
    assertEquals(errorOf({ base_path: "x", eviction }).key, key);
  }
});

Deno.test("unknown options, and LMCache's with another place here, are refused", () => {
  for (const key of ["basePath", "base_dir", "max_capacity", "eviction.eviction_policy"]) {
    assertEquals(errorOf({ base_path: "x", [key]: 1 }).key, key);
  }
  assertEquals(errorOf({}).key, "base_path");
});

Deno.test("the defaults limit the directory, and the capabilities are true", () => {
  assertEquals<unknown>(parseAdapterConfig(fs, { base_path: "x" }), {
    base_path: "x",
    durability: "none",
    max_capacity_gb: 10,
    pad_files: false,
    recover_on_start: true,
    use_odirect: false,
    io_concurrency: 8,
    read_max_bytes_in_flight: 0,
    file_layout: "kvtier",
    accept_unsealed: false,
    allow_foreign_owner: false,
    checksum: "none",
    allow_shared_group: false,
  });
});

Deno.test("status and usage show the configured limits", async () => {
  await using directory = await tempDirectory();
  const call = { signal: new AbortController().signal };
  for (
    const [config, capacityBytes] of [
      [{}, 10 * 2 ** 30],
      [{ max_capacity_gb: 0.5 }, 2 ** 29],
      [{ max_capacity_gb: 1, eviction: { eviction_policy: "noop" } }, 2 ** 30],
      [{ max_capacity_gb: 0 }, undefined],
    ] as const
  ) {
    await using adapter = await openFs({ base_path: directory.path, ...config });
    assertEquals((await adapter.usage?.(call))?.capacityBytes, capacityBytes);
    assertEquals(adapter.capabilities.evicts, capacityBytes !== undefined);
  }
});

Deno.test("disk limits need a permission, and the error names it", async () => {
  await using directory = await tempDirectory();
  const errors = await runChild(new URL("./fs_without_statfs.ts", import.meta.url), {
    permissions: ["--no-prompt", "--allow-read", "--allow-write", "--allow-env"],
    args: [`${directory.path}/base`],
  });
  assertEquals(errors, [
    "disk_high_watermark: the permission --allow-sys=statfs",
    "disk_min_free_gb: the permission --allow-sys=statfs",
  ]);
});

Deno.test("disk limits work on a real disk", async () => {
  await using directory = await tempDirectory();
  const config = { "base_path": directory.path, "disk_high_watermark": 1, "disk_min_free_gb": 0 };
  await using adapter = await openFs({ ...config, max_capacity_gb: 0 });
  assertEquals(adapter.capabilities.evicts, true);
  await assertRejects(() => openFs({ ...config, disk_min_free_gb: -1 }), ConfigError);
});

Deno.test({
  name:
    "a directory that may not be read is refused at the start, and the error says what to allow",
  permissions: { read: false, write: true, env: true, sys: true },
  async fn() {
    const error = await assertRejects(() => openFs({ base_path: "/some/kv" }), ConfigError);
    assertEquals([error.key, error.expected], [
      "base_path",
      "the permission --allow-read=/some/kv",
    ]);
  },
});

Deno.test("a missing base_path stays the same after a change of directory", async () => {
  await using directory = await tempDirectory();
  const program = new URL("./fs_after_chdir.ts", import.meta.url);
  const found = await runChild(program, { args: [directory.path] });
  assertEquals(found, [true, false]);
});
