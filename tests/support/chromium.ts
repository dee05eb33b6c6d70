/** The answer of a command of the DevTools protocol. */
// deno-lint-ignore no-explicit-any -- the protocol has hundreds of types
type Answer = any;

/** Names of Debian's Chromium and of others. */
const PROGRAMS = ["chromium", "chromium-browser", "google-chrome"];

/** The program of an installed Chromium; `undefined` if there is none. */
export async function findChromium(): Promise<string | undefined> {
  for (const program of PROGRAMS) {
    const { success } = await new Deno.Command(program, {
      args: ["--version"],
      stdout: "null",
      stderr: "null",
    }).output().catch(() => ({ success: false }));
    if (success) return program;
  }
  return undefined;
}

/** A page in a headless Chromium of its own, driven by the DevTools protocol. */
export class ChromiumPage implements AsyncDisposable {
  /** Errors and warnings on the console, and uncaught exceptions. */
  readonly complaints: string[] = [];
  readonly #child: Deno.ChildProcess;
  readonly #drained: Promise<void>;
  readonly #socket: WebSocket;
  readonly #profile: string;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #session = "";
  #nextId = 1;

  private constructor(
    child: Deno.ChildProcess,
    drained: Promise<void>,
    socket: WebSocket,
    profile: string,
  ) {
    this.#child = child;
    this.#drained = drained;
    this.#socket = socket;
    this.#profile = profile;
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
  }

  /** Starts a Chromium with an empty page. */
  static async start(program: string): Promise<ChromiumPage> {
    const profile = await Deno.makeTempDir({ prefix: "kvtier-chromium-" });
    const child = new Deno.Command(program, {
      args: [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-extensions",
        "--disable-background-networking",
        "--remote-debugging-port=0",
        `--user-data-dir=${profile}`,
        "about:blank",
      ],
      env: { HOME: profile },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    const said = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let url: string | undefined;
    while (url === undefined) {
      const { value, done } = await said.read();
      if (done) throw new Error(`${program} ended before it listened: ${text}`);
      text += value;
      url = /DevTools listening on (\S+)\s/.exec(text)?.[1];
    }
    const drained = (async () => {
      while (!(await said.read()).done);
    })();
    const socket = new WebSocket(url);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    const page = new ChromiumPage(child, drained, socket, profile);
    const { targetInfos } = await page.send("Target.getTargets");
    const { targetId } = targetInfos.find(({ type }: Answer) => type === "page");
    const { sessionId } = await page.send("Target.attachToTarget", { targetId, flatten: true });
    page.#session = sessionId;
    for (const domain of ["Page", "Runtime", "Log"]) await page.send(`${domain}.enable`);
    return page;
  }

  /** Sends a command. */
  async send(method: string, params: Readonly<Record<string, unknown>> = {}): Promise<Answer> {
    const id = this.#nextId++;
    const { promise, resolve } = Promise.withResolvers<Answer>();
    this.#waiting.set(id, resolve);
    const session = this.#session === "" ? {} : { sessionId: this.#session };
    this.#socket.send(JSON.stringify({ id, method, params, ...session }));
    const { result, error } = await promise;
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result;
  }

  /** Evaluates an expression in the page, and returns its value or what its promise resolves to. */
  async evaluate(expression: string): Promise<Answer> {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails === undefined) return result.value;
    throw new Error(`${expression.slice(0, 200)}: ${exceptionDetails.exception?.description}`);
  }

  /** Presses and releases a key, such as `Tab`, `Enter`, or a character. */
  async press(key: string): Promise<void> {
    const codes: Readonly<Record<string, number>> = { Tab: 9, Enter: 13, " ": 32, Escape: 27 };
    const text = key === "Enter" ? "\r" : key.length === 1 ? key : undefined;
    const common = { key, windowsVirtualKeyCode: codes[key] ?? key.toUpperCase().charCodeAt(0) };
    await this.send("Input.dispatchKeyEvent", {
      type: text === undefined ? "rawKeyDown" : "keyDown",
      ...common,
      ...text !== undefined && { text },
    });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...common });
  }

  /** Types text where the focus is. */
  async type(text: string): Promise<void> {
    await this.send("Input.insertText", { text });
  }

  /** Sets the width of the window and the colour scheme. */
  async show(width: number, scheme: "light" | "dark"): Promise<void> {
    const mobile = width < 600;
    const metrics = { width, height: 900, deviceScaleFactor: 1, mobile };
    await this.send("Emulation.setDeviceMetricsOverride", metrics);
    const features = [{ name: "prefers-color-scheme", value: scheme }];
    await this.send("Emulation.setEmulatedMedia", { features });
  }

  /** Writes a picture of the whole page. */
  async screenshot(path: string): Promise<void> {
    const options = { format: "png", captureBeyondViewport: true };
    const { data } = await this.send("Page.captureScreenshot", options);
    await Deno.writeFile(path, Uint8Array.fromBase64(data));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#socket.onclose = resolve);
    this.#session = "";
    this.send("Browser.close").catch(() => {});
    await closed;
    await this.#drained;
    await this.#child.status;
    await Deno.remove(this.#profile, { recursive: true });
  }

  #receive({ id, method, params, ...answer }: Answer): void {
    if (id !== undefined) {
      this.#waiting.get(id)?.(answer);
      this.#waiting.delete(id);
    } else if (method === "Runtime.exceptionThrown") {
      const { exceptionDetails: { text, exception } } = params;
      this.complaints.push(`${text} ${exception?.description ?? ""}`);
    } else if (method === "Runtime.consoleAPICalled") {
      if (["error", "warning", "assert"].includes(params.type)) {
        this.complaints.push(`console.${params.type}: ${JSON.stringify(params.args)}`);
      }
    } else if (method === "Log.entryAdded") {
      const { level, text, url = "" } = params.entry;
      if (level === "error" || level === "warning") this.complaints.push(`${text} ${url}`);
    }
  }
}
