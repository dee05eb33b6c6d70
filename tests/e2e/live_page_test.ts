// deno-lint-ignore-file no-console -- a test that does not run says so
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { AdapterError } from "../../src/adapter/errors.ts";
import { HostDevice } from "../../src/memory/host_device.ts";
import { serveStatus, type StatusServer } from "../../src/server/status_server.ts";
import { TieredCache } from "../../src/tiered_cache.ts";
import { moduleOf } from "../support/adapters.ts";
import { AXE_SOURCE } from "../support/axe.ts";
import { put } from "../support/caches.ts";
import { ChromiumPage, findChromium } from "../support/chromium.ts";
import { testKey, testLayout } from "../support/objects.ts";
import { waitUntil } from "../support/wait_until.ts";

const TOKEN = "correct-horse-battery-staple";
const LAYOUT = testLayout(64 * 1024);
const PICTURES = fromFileUrl(new URL("../../coverage/pages/", import.meta.url));

const chromium = await findChromium();
if (chromium === undefined) {
  const why = "The live page is not tested: there is no Chromium";
  if (Deno.env.get("KVTIER_REQUIRE_TOOLS")) throw new Error(why);
  console.warn(why);
}

/** An adapter whose loads fail, so that its circuit opens. */
const failing = moduleOf(() => ({
  capabilities: { durable: false, shared: false },
  store: () =>
    Promise.reject(
      new AdapterError({ adapter: "broken", operation: "store", cause: "the disk is on fire" }),
    ),
  lookupAndLock: (keys) => Promise.reject(new Error(`cannot look up ${keys.length} keys`)),
  load: () => Promise.reject(new Error("no")),
  [Symbol.asyncDispose]: () => Promise.resolve(),
}), "broken");

function openCache(): Promise<TieredCache> {
  return TieredCache.open({
    device: new HostDevice(),
    l1: { capacityBytes: 16 * 2 ** 20, slabBytes: 2 ** 20 },
    adapters: [failing],
    l2: [{ type: "dram", "max_capacity_gb": 0.05 }, { type: "broken" }],
    breaker: { failures: 1, coolDownMs: 600_000, maxCoolDownMs: 600_000 },
    store: { attempts: 1 },
  });
}

/** Requests of several models and tenants, until the signal aborts. */
async function load(cache: TieredCache, signal: AbortSignal): Promise<void> {
  for (let round = 0; !signal.aborted; round++) {
    const keys = Array.from({ length: 12 }, (_, i) =>
      testKey(round % 12 * 100 + i, {
        model: ["llama-3.1-8b", "qwen2.5-7b", "gemma-2-9b"][round % 3] ?? "",
        cacheSalt: ["tenant-a", "tenant-b", "anna@example.org", ""][round % 4] ?? "",
      }));
    {
      using hit = await cache.match(keys, LAYOUT);
      if (hit.length === 0) put(cache, keys.slice(0, 8 + round % 5), LAYOUT);
    }
    if (round % 5 === 0) {
      await cache.flush();
      cache.clearL1();
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** What a person reads in an element. */
const textOf = (page: ChromiumPage, selector: string): Promise<string> =>
  page.evaluate(`document.querySelector(${JSON.stringify(selector)})?.innerText ?? ""`);

/** Waits until an expression is true in the page. */
const untilIn = (page: ChromiumPage, expression: string): Promise<void> =>
  waitUntil(async () => await page.evaluate(`Boolean(${expression})`) === true);

/** Moves the focus by the Tab key until it is on an element. */
async function tabTo(page: ChromiumPage, id: string): Promise<void> {
  for (let i = 0; i < 40; i++) {
    if (await page.evaluate("document.activeElement.id") === id) return;
    await page.press("Tab");
  }
  throw new Error(`The Tab key does not reach #${id}`);
}

Deno.test({ name: "the live page in a browser", ignore: chromium === undefined }, async (t) => {
  await Deno.mkdir(PICTURES, { recursive: true });
  await using page = await ChromiumPage.start(chromium ?? "");
  let cache = await openCache();
  let server: StatusServer = serveStatus(cache, { port: 0, token: TOKEN });
  const { url } = server;
  const port = Number(new URL(url).port);
  const stop = new AbortController();
  const loading = load(cache, stop.signal);

  await page.show(1280, "light");
  await page.send("Page.navigate", { url });
  await t.step("asks for the token, and takes it by keyboard alone", async () => {
    await untilIn(page, `document.activeElement?.id === "token"`);
    assertEquals(await textOf(page, "#connection"), "Token needed");
    await page.type("wrong-wrong-wrong-wrong");
    await page.press("Enter");
    await untilIn(page, `document.querySelector("#connection").innerText === "Wrong token"`);
    await untilIn(page, `document.activeElement?.id === "token"`);
    await page.type(TOKEN);
    await page.press("Enter");
    await untilIn(page, `document.querySelector("#connection").innerText === "Live"`);
    assert(!(await page.evaluate("location.href")).includes(TOKEN));
    // The browser itself complains about the two answers 401.
    const [first, second, ...others] = page.complaints.splice(0);
    assertStringIncludes(`${first}`, "401");
    assertStringIncludes(`${second}`, "401");
    assertEquals(others, []);
  });

  await t.step("shows load as it happens", async () => {
    await untilIn(page, `document.querySelectorAll("#chart-hits rect").length > 1`);
    await untilIn(page, `document.querySelectorAll("#chart-misses rect").length > 0`);
    await untilIn(page, `document.querySelector("#adapters").innerText.includes("lookup open")`);
    assertStringIncludes(await textOf(page, "#adapters"), "the disk is on fire");
    assertStringIncludes(await textOf(page, "#health"), "problem");
    assertStringIncludes(await textOf(page, "#events"), "broken 1");
  });

  stop.abort();
  await loading;
  put(cache, [testKey(9_999, { cacheSalt: "tenant-a" })], LAYOUT);
  await cache.flush();
  await t.step("its figures equal /status", async () => {
    const at = Date.now();
    await untilIn(page, `Number(document.body.dataset.at) > ${at}`);
    const headers = { authorization: `Bearer ${TOKEN}` };
    const status = await (await fetch(new URL("status", url), { headers })).json();
    const bytes = (value: number): Promise<string> => {
      const [unit, size] = value < 1023.5 * 1024 ? ["KiB", 2 ** 10] : ["MiB", 2 ** 20];
      const shown = value / size;
      const digits = shown >= 100
        ? String(Math.round(shown))
        : String(Number(shown.toPrecision(3)));
      return Promise.resolve(`${digits} ${unit}`);
    };
    assertEquals(await textOf(page, "[data-tier=l1] .big"), await bytes(status.l1.usedBytes));
    const l1 = await textOf(page, "[data-tier=l1] dl");
    assertStringIncludes(l1, `Objects\n${status.l1.totalObjectCount}`);
    assertStringIncludes(l1, `Evicted\n${status.l1.evictedCount.toLocaleString("en-US")}`);
    const [dram] = status.adapters;
    assertGreater(dram.loadedObjects, 0);
    assertEquals(
      await textOf(page, ".card[data-adapter='0'] .big"),
      await bytes(dram.details.usedBytes),
    );
    const cells = await page.evaluate(
      `[...document.querySelectorAll("tr[data-adapter='0'] td.num")].map((cell) => cell.innerText)`,
    );
    const count = (value: number): string => value.toLocaleString("en-US");
    assertEquals(cells.slice(1), [
      count(dram.storedObjects),
      count(dram.loadedObjects),
      count(dram.failedCalls),
      "0",
    ]);
    const salts = await page.evaluate(
      `[...document.querySelectorAll("#salts tr")].map((row) => row.innerText.split("\\t"))`,
    );
    for (const [i, { name, bytes: size }] of status.usage.topSalts.entries()) {
      assertEquals(salts[i], [name === "" ? "(no salt)" : name, await bytes(size)]);
    }
  });

  for (const width of [390, 1280]) {
    for (const scheme of ["light", "dark"] as const) {
      await t.step(`can be read at ${width} px, ${scheme}`, async () => {
        await page.show(width, scheme);
        const wide = await page.evaluate("document.documentElement.scrollWidth");
        assert(wide <= width, `${wide} px wide`);
        await page.screenshot(join(PICTURES, `${width}-${scheme}.png`));
        if (await page.evaluate("typeof axe") === "undefined") await page.evaluate(AXE_SOURCE);
        const violations = await page.evaluate(
          `axe.run().then(({ violations }) => violations.map(({ id, nodes }) =>
            id + ": " + nodes.map(({ html, failureSummary }) => html + failureSummary).join("; ")))`,
        );
        assertEquals(violations, []);
      });
    }
  }

  await t.step("forgets a salt by keyboard alone, after a confirmation", async () => {
    await tabTo(page, "forget-name");
    await page.type("tenant-a");
    await page.press("Enter");
    await untilIn(page, `document.querySelector("#confirm").open`);
    await page.press("Escape");
    await untilIn(page, `document.querySelector("#result").innerText === "Cancelled."`);
    assert(cache.usageBySalt().has("tenant-a"));
    await page.press("Enter");
    await untilIn(page, `document.querySelector("#confirm").open`);
    assertStringIncludes(await textOf(page, "#confirm"), `"tenant-a"`);
    await page.press("Enter");
    await untilIn(page, `document.querySelector("#result").innerText.startsWith("Removed")`);
    assert(!cache.usageBySalt().has("tenant-a"));
    await untilIn(page, `document.querySelector("#events").innerText.includes("forgot the salt")`);
    assertEquals(page.complaints, []);
  });

  await t.step("connects again by itself when the program restarts", async () => {
    await server.close();
    await cache.close();
    await untilIn(page, `document.querySelector("#connection").innerText !== "Live"`);
    cache = await openCache();
    server = serveStatus(cache, { port, token: TOKEN });
    await untilIn(page, `document.querySelector("#connection").innerText === "Live"`);
    await untilIn(page, `document.querySelector("[data-tier=l1] .big").innerText === "0 B"`);
    // The browser itself complains about the refused connections.
    const others = page.complaints.filter((each) => !/net::ERR|ERR_CONNECTION/.test(each));
    assertEquals(others, []);
  });
  await server.close();
  await cache.close();
});
