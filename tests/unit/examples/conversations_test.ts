import { assertEquals } from "@std/assert";
import { Conversations } from "../../../docs/examples/chat/conversations.ts";

const CONVERSATION = { text: "user: a\nassistant: b", tokens: [1, 2, 3] };

Deno.test("Conversations: token ids of another tokenizer are not restored", () => {
  const before = new Conversations("tokenizer 1");
  before.note("salt", CONVERSATION);
  const json = JSON.parse(JSON.stringify(before));
  const found = (tokenizer: string): unknown => {
    const conversations = new Conversations(tokenizer);
    conversations.restore(json);
    return conversations.find("salt", `${CONVERSATION.text}\nuser: c`);
  };
  assertEquals(found("tokenizer 1"), CONVERSATION);
  assertEquals(found("tokenizer 2"), undefined);
});

Deno.test("Conversations: restoring keeps the limit, and skips what is none", () => {
  const before = new Conversations("t");
  for (let i = 0; i < 5; i++) before.note("", { text: `${i}`, tokens: [i] });
  const conversations = new Conversations("t", 2);
  conversations.restore(JSON.parse(JSON.stringify(before)));
  assertEquals(conversations.find("", "2"), undefined);
  assertEquals(conversations.find("", "4"), { text: "4", tokens: [4] });
  for (
    const json of [undefined, null, 1, "x", [], {}, { tokenizer: "t", conversations: [1, [2]] }]
  ) {
    conversations.restore(json);
  }
});
