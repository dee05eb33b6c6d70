/** Script of the live page: the stream of events, which it opens again whenever it ends. */
export const STREAM_SCRIPT: string = String.raw`
const FIRST_WAIT_MS = 500;
const MAX_WAIT_MS = 10000;
const SILENCE_MS = 8000;
let waitMs = FIRST_WAIT_MS;
let server;

const showConnection = (text, kind) => {
  setText($("connection"), text);
  $("connection").className = "badge " + kind;
};

const onMessage = (event, data) => {
  if (event === "hello") {
    // The counters and event ids of another process begin again.
    if (server !== data.startedAt) { cacheEvents = []; lastSample = undefined; showEvents(); }
    server = data.startedAt;
    setText($("version"), "version " + data.version);
    showActions(data.canAct);
    showConnection("Live", "good");
    waitMs = FIRST_WAIT_MS;
  } else if (event === "status") {
    document.body.dataset.at = String(data.at);
    addSample(data.at, data.status);
    showHealth(data.status);
    showTiers(data.status);
    showCharts(data.status);
    showAdapters(data.status.adapters);
    const { topModels, modelCount, topSalts, saltCount } = data.status.usage;
    showUsage($("models"), topModels, modelCount, "(no name)");
    showUsage($("salts"), topSalts, saltCount, "(no salt)");
  } else if (event === "cache") {
    addEvent(data);
  }
};

// Reads one stream to its end. Throws if it does not begin, or stays silent.
const readStream = async () => {
  const stop = new AbortController();
  let silence;
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => stop.abort(new Error("no message for " + SILENCE_MS / 1000 + " s")), SILENCE_MS);
  };
  heard();
  try {
    const response = await fetch("events", { headers: withToken({}), signal: stop.signal });
    if (response.status === 401) return "token";
    if (!response.ok) throw new Error((await response.json()).error);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return "ended";
      heard();
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = Object.fromEntries(block.split("\n").map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]));
        onMessage(fields.event, JSON.parse(fields.data));
      }
    }
  } finally {
    clearTimeout(silence);
    stop.abort();
  }
};

const askForToken = () => {
  $("sign-in").hidden = false;
  showConnection(token === "" ? "Token needed" : "Wrong token", "bad");
  $("token").focus();
};
onSubmit("token-form", () => {
  token = $("token").value.trim();
  $("token").value = "";
  $("sign-in").hidden = true;
  connect();
});

const connect = async () => {
  showConnection("Connecting", "warn");
  let reason = "ended";
  try {
    reason = await readStream();
    if (reason === "token") return askForToken();
  } catch (error) {
    reason = error.message;
  }
  showConnection("Connecting again", "warn");
  $("connection").title = reason;
  setTimeout(connect, waitMs * (0.75 + Math.random() / 2));
  waitMs = Math.min(2 * waitMs, MAX_WAIT_MS);
};
const keepToken = () => token === "" ? sessionStorage.removeItem("kvtier-token") : sessionStorage.setItem("kvtier-token", token);
addEventListener("pagehide", keepToken);
connect();
`;
