const ENTITIES: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
};

/** The text of the first element with a name, which has no elements within. */
export function tagIn(document: string, name: string): string | undefined {
  const [, text] = new RegExp(`<${name}(?:\\s[^>]*)?>([^<]*)</${name}>`).exec(document) ?? [];
  return text === undefined ? undefined : unescapeXml(text);
}

/** What stands within each element with a name; it has none of the same name within. */
export function elementsIn(document: string, name: string): string[] {
  const pattern = new RegExp(`<${name}(?:\\s[^>]*)?>([\\s\\S]*?)</${name}>`, "g");
  return [...document.matchAll(pattern)].map(([, content = ""]) => content);
}

/** A text as it stands in an element. */
export function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function unescapeXml(text: string): string {
  return text.replaceAll(
    /&(?:#(\d{1,7})|#x([0-9a-fA-F]{1,6})|(\w+));/g,
    (whole, dec, hex, name) => {
      if (name !== undefined) return ENTITIES[name] ?? whole;
      const point = dec === undefined ? parseInt(hex, 16) : Number(dec);
      return point <= 0x10ffff ? String.fromCodePoint(point) : whole;
    },
  );
}
