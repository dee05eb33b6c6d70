import { ConfigError } from "./config_error.ts";

/**
 * Resolves the name of a policy to one of `known`; returns a policy object as it is.
 *
 * @throws {ConfigError} If the name is unknown.
 */
export function namedChoice<Choice extends { readonly name: string }>(
  option: string,
  chosen: string | Choice,
  known: readonly Choice[],
): Choice {
  if (typeof chosen !== "string") return chosen;
  const found = known.find(({ name }) => name === chosen);
  if (found !== undefined) return found;
  throw new ConfigError({
    subject: option,
    expected: `${known.map(({ name }) => `"${name}"`).join(", ")} or a policy of your own`,
    received: chosen,
  });
}
