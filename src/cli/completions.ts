import { ConfigError } from "../base/config_error.ts";
import { type CliCommand, type CommandGroup, COMMON_OPTIONS, type OptionDef } from "./command.ts";

/** A command as completion sees it. */
interface Completed {
  /** Its names, separated by spaces; empty for the program. */
  readonly path: string;
  /** Names and descriptions of its subcommands. */
  readonly commands: readonly (readonly [name: string, description: string])[];
  readonly options: readonly (readonly [name: string, option: OptionDef])[];
  /** Whether its argument is a file. */
  readonly takesFile: boolean;
}

const SCRIPTS: Readonly<Record<string, (commands: readonly Completed[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

/** `kvtier completions SHELL`: prints a script that completes commands, options and values. */
export function completionsCommand(root: () => CommandGroup): CliCommand {
  return {
    description: "Print a script with which a shell completes commands and options",
    details: [
      "For a program named kvtier, as deno install -g -A -n kvtier jsr:@kvtier/kvtier/cli makes it. Put the output where the shell loads completions, or source it from its start file.",
    ],
    positional: { name: "SHELL", description: `One of ${Object.keys(SCRIPTS).join(", ")}` },
    options: {},
    permissions: ["none"],
    examples: [
      "completions bash > ~/.local/share/bash-completion/completions/kvtier",
      "completions zsh > ~/.zfunc/_kvtier",
      "completions fish > ~/.config/fish/completions/kvtier.fish",
    ],
    // deno-lint-ignore require-await -- a command is asynchronous
    run: async ({ positional: shell = "nothing" }, { out }) => {
      const script = Object.hasOwn(SCRIPTS, shell) ? SCRIPTS[shell] : undefined;
      if (script === undefined) {
        const expected = `one of ${Object.keys(SCRIPTS).join(", ")}`;
        const subject = "kvtier completions";
        throw new ConfigError({ subject, key: "SHELL", expected, received: shell });
      }
      const text = script(commandsIn("", root()));
      out.print(text);
      out.json({ shell, script: text });
    },
  };
}

/** All commands below a group, and the group. */
function commandsIn(path: string, group: CommandGroup): Completed[] {
  const entries = Object.entries(group.commands);
  const own: Completed = {
    path,
    commands: entries.map(([name, { description }]) => [name, description]),
    options: [["help", COMMON_OPTIONS.help]],
    takesFile: false,
  };
  const inner = entries.flatMap(([name, command]) => {
    const innerPath = path === "" ? name : `${path} ${name}`;
    if ("commands" in command) return commandsIn(innerPath, command);
    const options = Object.entries<OptionDef>({ ...command.options, ...COMMON_OPTIONS });
    const takesFile = command.positional?.name === "FILE";
    return [{ path: innerPath, commands: [], options, takesFile }];
  });
  return [own, ...inner];
}

/** What a shell offers as the value of an option. */
function valueOf({ valueHint, oneOf }: OptionDef): "words" | "file" | "directory" | "any" {
  if (oneOf !== undefined) return "words";
  if (valueHint === "FILE") return "file";
  return valueHint === "DIR" ? "directory" : "any";
}

/** The lines of a `case` that find the command in the words so far. */
function pathPattern(commands: readonly Completed[]): string {
  return commands.filter(({ path }) => path !== "").map(({ path }) => `"${path}"`).join("|");
}

function bashScript(commands: readonly Completed[]): string {
  const values = commands.flatMap(({ path, options }) =>
    options.filter(([, { type }]) => type === "string").map(([name, option]) => {
      const reply = {
        words: `compgen -W "${option.oneOf?.join(" ")}" -- "$cur"`,
        file: `compgen -f -- "$cur"`,
        directory: `compgen -d -- "$cur"`,
        any: "",
      }[valueOf(option)];
      return `    "${path}:--${name}") ${replyWith(reply)} return ;;`;
    })
  );
  const words = commands.map(({ path, commands, options, takesFile }) => {
    const all = [...commands.map(([name]) => name), ...options.map(([name]) => `--${name}`)];
    const files = takesFile
      ? `[[ $cur == -* ]] || { ${replyWith(`compgen -f -- "$cur"`)} return; }; `
      : "";
    return `    "${path}") ${files}${replyWith(`compgen -W "${all.join(" ")}" -- "$cur"`)} ;;`;
  });
  return `# Completions of kvtier for bash.
_kvtier() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} path="" word i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="\${path:+$path }\${COMP_WORDS[i]}"
    case "$word" in
      ${pathPattern(commands)}) path=$word ;;
    esac
  done
  case "$path:$prev" in
${values.join("\n")}
  esac
  case "$path" in
${words.join("\n")}
  esac
}
complete -F _kvtier kvtier`;
}

function replyWith(command: string): string {
  return command === "" ? "" : `mapfile -t COMPREPLY < <(${command});`;
}

function zshScript(commands: readonly Completed[]): string {
  const values = commands.flatMap(({ path, options }) =>
    options.filter(([, { type }]) => type === "string").map(([name, option]) => {
      const action = {
        words: `compadd -- ${option.oneOf?.join(" ")}`,
        file: "_files",
        directory: "_files -/",
        any: "_message value",
      }[valueOf(option)];
      return `    "${path}:--${name}") ${action}; return ;;`;
    })
  );
  const words = commands.map(({ path, commands, options, takesFile }) => {
    const items = [
      ...commands,
      ...options.map(([name, { description }]) => [`--${name}`, description] as const),
    ].map(([name, description]) =>
      quoted(`${name}:${description.replaceAll(":", "\\:")}`, "'\\''")
    );
    const files = takesFile ? "_files; " : "";
    return `    "${path}") ${files}items=(${items.join(" ")}) ;;`;
  });
  return `#compdef kvtier
# Completions of kvtier for zsh.
_kvtier() {
  local path_="" word i
  local -a items
  for ((i = 2; i < CURRENT; i++)); do
    word="\${path_:+$path_ }\${words[i]}"
    case "$word" in
      ${pathPattern(commands)}) path_=$word ;;
    esac
  done
  case "$path_:\${words[CURRENT-1]}" in
${values.join("\n")}
  esac
  case "$path_" in
${words.join("\n")}
  esac
  _describe kvtier items
}
if [ "$funcstack[1]" = "_kvtier" ]; then _kvtier "$@"; else compdef _kvtier kvtier; fi`;
}

function fishScript(commands: readonly Completed[]): string {
  const lines = commands.flatMap(({ path, commands, options, takesFile }) => {
    const names = path.split(" ").filter((name) => name !== "");
    const seen = names.map((name) => `__fish_seen_subcommand_from ${name}`);
    const inner = commands.map(([name]) => name).join(" ");
    const conditions = [
      ...names.length === 0 ? ["__fish_use_subcommand"] : seen,
      ...inner !== "" && names.length > 0 ? [`not __fish_seen_subcommand_from ${inner}`] : [],
    ];
    const start = `complete -c kvtier -n ${quoted(conditions.join("; and "), "\\'")}`;
    return [
      ...commands.map(([name, text]) => `${start} -f -a ${name} -d ${quoted(text, "\\'")}`),
      ...takesFile ? [`${start} -F`] : [],
      ...options.map(([name, option]) => {
        const value = option.type === "boolean" ? "" : {
          words: ` -x -a ${quoted(option.oneOf?.join(" ") ?? "", "\\'")}`,
          file: " -r -F",
          directory: " -x -a '(__fish_complete_directories)'",
          any: " -x",
        }[valueOf(option)];
        return `${start} -l ${name}${value} -d ${quoted(option.description, "\\'")}`;
      }),
    ];
  });
  return `# Completions of kvtier for fish.\n${lines.join("\n")}`;
}

/** Quotes for a shell in which `escaped` stands for a quote within quotes. */
function quoted(text: string, escaped: string): string {
  return `'${text.replaceAll("'", escaped)}'`;
}
