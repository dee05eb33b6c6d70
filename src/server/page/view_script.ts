/** Script of the live page: what the figures and tables show. */
export const VIEW_SCRIPT: string = String.raw`
const $ = (id) => document.getElementById(id);
const el = (tag, props, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};
const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };

const three = (value) => value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
const bytes = (value) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (value >= 1023.5 && i < units.length - 1) { value /= 1024; i++; }
  return three(value) + " " + units[i];
};
const percent = (share) => three(100 * share) + " %";
const count = (value) => value.toLocaleString("en-US");
const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

const showHealth = (status) => {
  const { problems, device } = status;
  const health = $("health");
  setText(health, problems.length === 0 ? "Healthy" : problems.length === 1 ? "1 problem" : problems.length + " problems");
  health.className = problems.length === 0 ? "badge good" : "badge bad";
  setText($("device"), device.description);
  $("problems").hidden = problems.length === 0;
  const list = $("problem-list");
  if (list.dataset.shown !== problems.join("\n")) {
    list.dataset.shown = problems.join("\n");
    list.replaceChildren(...problems.map((problem) => el("li", { text: problem })));
  }
};

const bar = (label, parts, total) => {
  const used = parts.reduce((sum, part) => sum + part.value, 0);
  const node = el("div", {
    class: "bar", role: "meter", "aria-label": label, "aria-valuemin": "0",
    "aria-valuemax": String(total), "aria-valuenow": String(used),
    "aria-valuetext": bytes(used) + " of " + bytes(total),
  });
  for (const part of parts) {
    const piece = el("i", { class: part.kind });
    piece.style.width = (total > 0 ? Math.min(100, 100 * part.value / total) : 0) + "%";
    node.append(piece);
  }
  return node;
};
const facts = (pairs) => el("dl", {}, ...pairs.flatMap(([name, value]) => [
  el("dt", { text: name }), el("dd", { text: value }),
]));

const stateBadge = (adapter) => {
  const open = Object.values(adapter.circuits).some((circuit) => circuit.state !== "closed");
  const kind = adapter.state !== "active" ? "warn" : open || !adapter.isHealthy ? "bad" : "good";
  const text = adapter.state !== "active" ? adapter.state : open ? "paused" : adapter.isHealthy ? "active" : "problem";
  return el("span", { class: "badge " + kind, text });
};
const fill = (details) => {
  const places = [details, details.space || {}];
  const read = (key) => places.map((place) => place[key]).find((value) => typeof value === "number" && value >= 0);
  return { used: read("usedBytes"), capacity: read("capacityBytes") };
};

const showTiers = (status) => {
  const { l1, store, prefetch, adapters, device } = status;
  const first = el("div", { class: "card", "data-tier": "l1" },
    el("div", { class: "top" }, el("h3", { text: "L1 · " + device.type }),
      el("span", { class: "badge " + (device.isLost ? "bad" : "good"), text: device.isLost ? "lost" : percent(l1.usageRatio || 0) + " full" })),
    el("p", { class: "big", text: bytes(l1.usedBytes) }),
    el("p", { class: "soft small", text: "of " + bytes(l1.capacityBytes) + ", " + bytes(l1.heldBytes) + " not stored yet" }),
    bar("Fill of L1", [
      { kind: "clean", value: Math.max(0, l1.usedBytes - l1.heldBytes) },
      { kind: "dirty", value: l1.heldBytes },
    ], l1.capacityBytes),
    facts([
      ["Objects", count(l1.totalObjectCount)],
      ["Leased", count(l1.readLockedCount)],
      ["Evicted", count(l1.evictedCount)],
      ["Waiting to be stored", bytes(store.pendingBytes)],
      ["Being stored", bytes(store.inFlightBytes)],
      ["Being loaded", bytes(prefetch.loadBytesInUse)],
    ]));
  const others = adapters.map((adapter) => {
    const { used, capacity } = fill(adapter.details);
    const card = el("div", { class: "card", "data-adapter": String(adapter.id) },
      el("div", { class: "top" }, el("h3", { text: "L2 · " + adapter.type + " " + adapter.id }), stateBadge(adapter)),
      el("p", { class: "big", text: used === undefined ? "—" : bytes(used) }),
      el("p", { class: "soft small", text: used === undefined ? "The adapter does not report its size" : capacity === undefined ? "no capacity reported" : "of " + bytes(capacity) }));
    if (used !== undefined && capacity > 0) {
      card.append(bar("Fill of " + adapter.type + " " + adapter.id, [{ kind: "clean", value: used }], capacity));
    }
    card.append(facts([
      ["Stored", bytes(adapter.storedBytes)],
      ["Loaded", bytes(adapter.loadedBytes)],
      ["Load speed", adapter.loadBytesPerMs === undefined ? "unknown" : bytes(adapter.loadBytesPerMs * 1000) + "/s"],
      ["Lookup", adapter.lookupMs === undefined ? "unknown" : three(adapter.lookupMs) + " ms"],
      ["Calls in progress", count(adapter.callsInFlight) + (adapter.hungCalls > 0 ? ", " + adapter.hungCalls + " hang" : "")],
    ]));
    return card;
  });
  $("tiers").replaceChildren(first, ...others);
};

const ADAPTER_COLUMNS = [
  ["Adapter", ""], ["State", ""], ["Circuits", ""], ["Found", "num"], ["Stored", "num"], ["Loaded", "num"],
  ["Failed calls", "num"], ["Damaged", "num"], ["Last error", ""],
];
$("adapter-head").append(el("tr", {}, ...ADAPTER_COLUMNS.map(([name, kind]) => el("th", { scope: "col", class: kind, text: name }))));

const showAdapters = (adapters) => {
  const rows = adapters.map((adapter) => {
    const circuits = el("div", { class: "circuits" });
    for (const [name, { state, retryInMs }] of Object.entries(adapter.circuits)) {
      if (state === "closed") continue;
      const wait = retryInMs > 0 ? ", " + Math.ceil(retryInMs / 1000) + " s" : "";
      circuits.append(el("span", { class: "badge " + (state === "open" ? "bad" : "warn"), text: name + " " + state + wait }));
    }
    if (!circuits.hasChildNodes()) circuits.append(el("span", { class: "badge good", text: "all closed" }));
    const damaged = Object.values(adapter.damagedObjects).reduce((sum, each) => sum + each, 0);
    const num = (text) => el("td", { class: "num", text });
    return el("tr", { "data-adapter": String(adapter.id) },
      el("th", { scope: "row", text: adapter.type + " " + adapter.id }),
      el("td", {}, stateBadge(adapter)), el("td", {}, circuits),
      num(adapter.lookedUpKeys === 0 ? "—" : percent(adapter.foundKeys / adapter.lookedUpKeys)),
      num(count(adapter.storedObjects)), num(count(adapter.loadedObjects)),
      num(count(adapter.failedCalls)), num(count(damaged)),
      el("td", { class: "error", text: adapter.lastError || "none" }));
  });
  if (rows.length === 0) rows.push(el("tr", {}, el("td", { colspan: "9", class: "soft", text: "There are no adapters." })));
  $("adapters").replaceChildren(...rows);
  const select = $("remove-id");
  const ids = adapters.map(({ id }) => id).join();
  if (select.dataset.shown === ids) return;
  select.dataset.shown = ids;
  const { value } = select;
  select.replaceChildren(...adapters.map(({ id, type }) => el("option", { value: String(id), text: type + " " + id })));
  if (adapters.some(({ id }) => String(id) === value)) select.value = value;
};

const showUsage = (body, shares, total, empty) => {
  const rows = shares.map(({ name, bytes: size }) => el("tr", {},
    el("td", { class: "name", text: name === "" ? empty : name }), el("td", { class: "num", text: bytes(size) })));
  if (rows.length === 0) rows.push(el("tr", {}, el("td", { colspan: "2", class: "soft", text: "L1 is empty." })));
  if (total > shares.length) rows.push(el("tr", {}, el("td", { colspan: "2", class: "soft", text: "and " + count(total - shares.length) + " more" })));
  body.replaceChildren(...rows);
};

// What repeats within this time is one line.
const MERGE_MS = 60000;
const ROUTINE = ["stored", "loaded", "deleted"];
let cacheEvents = [];
const WORDS = {
  stored: "stored", loaded: "loaded", deleted: "removed", damaged: "Damaged object", dropped: "Dropped instead of stored",
  skipped: "No room in L1", deadline: "Answered at the deadline", adapteradded: "Adapter added",
  adapterchanged: "Adapter changed state", adapterremoved: "Adapter removed", devicelost: "Device lost",
  deviceattached: "New device", action: "Action", others: "Many other events",
};
const eventText = ({ type, objects, bytes: size, adapter, reason, count: times }) => {
  const name = adapter === undefined ? "" : adapter.type + " " + adapter.id;
  const words = WORDS[type] || type;
  const what = count(objects) + (objects === 1 ? " object" : " objects") + (size > 0 ? ", " + bytes(size) : "");
  if (ROUTINE.includes(type)) return name + " " + words + " " + what;
  const detail = [name, reason].filter(Boolean).join(": ");
  const amount = ["dropped", "skipped", "deadline"].includes(type) ? " (" + what + ")" : times > 1 ? " (" + times + " times)" : "";
  return words + (detail ? ": " + detail : "") + amount;
};
const showEvents = () => {
  const all = $("routine").checked;
  const shown = cacheEvents.filter(({ type }) => all || !ROUTINE.includes(type)).slice(-100).reverse();
  const items = shown.map((event) => el("li", {},
    el("time", { datetime: new Date(event.at).toISOString(), text: clock(event.at) }), el("span", { text: eventText(event) })));
  if (items.length === 0) items.push(el("li", { class: "soft", text: "Nothing to report." }));
  $("events").replaceChildren(...items);
};
const addEvent = (event) => {
  if (cacheEvents.some(({ id }) => id === event.id)) return;
  const same = cacheEvents.findLast((each) => each.type === event.type && each.reason === event.reason &&
    (each.adapter || {}).id === (event.adapter || {}).id && event.at - each.at < MERGE_MS);
  if (same === undefined || event.type === "action") cacheEvents = [...cacheEvents, event].slice(-400);
  else for (const key of ["count", "objects", "bytes"]) same[key] += event[key];
  showEvents();
};
$("routine").addEventListener("change", showEvents);
showEvents();
`;
