// Writes what the commands declare into docs/command-line.md.
import { type CliCommand, type CommandGroup, optionRows, usageOf } from "../src/cli/command.ts";
import { kvtier } from "../src/cli/commands.ts";
import { markdownTable } from "./markdown_table.ts";

/** The page about the command line. */
export const commandPage = new URL("../docs/command-line.md", import.meta.url);

const BLOCK = /(<!-- declared by the commands -->\n)[^]*?(<!-- end -->)/;

/** The page with what the commands declare now, formatted. */
export async function withCommands(text: string): Promise<string> {
  const blocks = sectionsOf("kvtier", kvtier);
  return await format(text.replace(BLOCK, (_, start, end) => `${start}\n${blocks}\n${end}`));
}

function sectionsOf(name: string, group: CommandGroup): string {
  return Object.entries(group.commands).map(([each, command]) => {
    const path = `${name} ${each}`;
    return "commands" in command ? sectionsOf(path, command) : sectionOf(path, command);
  }).join("\n");
}

function sectionOf(name: string, command: CliCommand): string {
  const { description, details = [], permissions, examples } = command;
  const rows = optionRows(command).filter(([option]) => option !== "--json" && option !== "--help");
  const options = rows.map(([option, text]) => [`\`${option}\``, text.replaceAll("|", "\\|")]);
  return [
    `### \`${name}\``,
    `${description}.`,
    ...details.map(plain),
    `\`\`\`text\n${usageOf(name, command)}\n\`\`\``,
    ...options.length === 0 ? [] : [markdownTable(["Option", "Meaning"], options)],
    `Permissions:\n\n${permissions.map((line) => `- ${plain(line)}`).join("\n")}`,
    `Examples:\n\n\`\`\`text\n${examples.map((line) => `kvtier ${line}`).join("\n")}\n\`\`\``,
    "",
  ].join("\n\n");
}

/** Text in which Markdown finds no markup. */
function plain(text: string): string {
  return text.replaceAll(/[*_<]/g, "\\$&");
}

/** Formats a page as `deno fmt` does. */
async function format(text: string): Promise<string> {
  const args = ["fmt", "--ext", "md", "--line-width", "100", "-"];
  const options = { args, stdin: "piped", stdout: "piped" } as const;
  const process = new Deno.Command(Deno.execPath(), options).spawn();
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode(text));
  await writer.close();
  const { stdout } = await process.output();
  return new TextDecoder().decode(stdout);
}

if (import.meta.main) {
  await Deno.writeTextFile(commandPage, await withCommands(await Deno.readTextFile(commandPage)));
}
