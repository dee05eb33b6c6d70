import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { runForJson, runKvtier } from "../../support/cli.ts";
import { tempDirectory } from "../../support/temp_directory.ts";

/** Runs a bash script that has sourced the completions. */
async function bash(script: string): Promise<string[]> {
  await using directory = await tempDirectory();
  const file = join(directory.path, "kvtier.bash");
  await Deno.writeTextFile(file, (await runKvtier(["completions", "bash"])).out);
  const args = ["-euc", `bash -n "$1"; source "$1"; cd "\${1%/*}"; ${script}`, "bash", file];
  const { stdout, stderr } = await new Deno.Command("bash", { args }).output();
  assertEquals(new TextDecoder().decode(stderr), "");
  return new TextDecoder().decode(stdout).trim().split("\n");
}

/** The words of a command line, completed at its last one. */
function complete(...words: string[]): string {
  const list = ["kvtier", ...words].map((word) => `'${word}'`).join(" ");
  return `COMP_WORDS=(${list}); COMP_CWORD=${words.length}; _kvtier; echo "\${COMPREPLY[*]:-}"`;
}

Deno.test("bash completes commands, options, values and files", async () => {
  const lines = await bash([
    complete("ver"),
    complete("new", ""),
    complete("verify", "--re"),
    complete("stat", "--top", "3", "--by", ""),
    complete("ls", "--l2-config", "kvt"),
    complete("import", "kv"),
    complete("forget", "--salt", ""),
  ].join("; "));
  assertEquals(lines, [
    "verify",
    "adapter --help",
    "--repair",
    "model salt age size",
    "kvtier.bash",
    "kvtier.bash",
  ]);
});

Deno.test("zsh and fish get every command and option, quoted", async () => {
  const zsh = (await runForJson(["completions", "zsh"])).json.script;
  const fish = (await runForJson(["completions", "fish"])).json.script;
  assertStringIncludes(zsh, `"stat:--by") compadd -- model salt age size; return ;;`);
  assertStringIncludes(zsh, "'--repair:Remove damaged objects, which are misses anyway'");
  assertStringIncludes(
    fish,
    "-n '__fish_seen_subcommand_from stat' -l by -x -a 'model salt age size'",
  );
  assertStringIncludes(fish, "-n '__fish_use_subcommand' -f -a verify -d 'Read every object");
  for (const script of [zsh, fish]) {
    // An odd number of quotes would swallow what follows.
    const unescaped = script.replaceAll("'\\''", "").replaceAll("\\'", "");
    assert(unescaped.split("'").length % 2 === 1);
  }
  const { code, err } = await runKvtier(["completions", "tcsh"]);
  assertStringIncludes(err, "SHELL: expected one of bash, zsh, fish");
  assertEquals(code, 2);
});
