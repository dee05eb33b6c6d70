/** One server-sent event. */
export interface SentEvent {
  readonly event: string;
  // deno-lint-ignore no-explicit-any -- tests look into data of many shapes
  readonly data: any;
}

/** Reads the events of a response, as far as they are asked for. */
export async function* eventsOf(response: Response): AsyncGenerator<SentEvent, void> {
  let text = "";
  for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    text += chunk;
    const blocks = text.split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const fields = new Map(
        block.split("\n").map((line): [string, string] => {
          const at = line.indexOf(": ");
          return [line.slice(0, at), line.slice(at + 2)];
        }),
      );
      yield { event: fields.get("event") ?? "", data: JSON.parse(fields.get("data") ?? "") };
    }
  }
}
