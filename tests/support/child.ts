import { fromFileUrl } from "@std/path";

const project = fromFileUrl(new URL("../../", import.meta.url));

/** Options of a child program. */
export interface ChildOptions {
  /** Permissions. @default {["-A"]} */
  readonly permissions?: readonly string[];
  /** The program's arguments. */
  readonly args?: readonly string[];
  /** Its standard input. @default {"null"} */
  readonly stdin?: "null" | "piped";
  /** A shell script that runs the command as `"$@"`. */
  readonly shell?: readonly [command: string, ...args: string[]];
}

/** The command that runs a Deno program of this project. */
export function childCommand(program: URL, options: ChildOptions = {}): Deno.Command {
  const { permissions = ["-A"], args = [], stdin = "null", shell } = options;
  const module = program.protocol === "file:" ? fromFileUrl(program) : program.href;
  const deno = [Deno.execPath(), "run", "-q", ...permissions, module, ...args];
  const [command = "", ...rest] = shell === undefined ? deno : [...shell, ...deno];
  const cwd = project;
  return new Deno.Command(command, { args: rest, cwd, stdin, stdout: "piped" });
}

/** Runs a Deno program of this project to completion and parses its output as JSON. */
export async function runChild(program: URL, options: ChildOptions = {}): Promise<unknown> {
  const { success, stdout, stderr } = await childCommand(program, options).output();
  const [text, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  if (!success || text === undefined) throw new Error(`${program} failed: ${text}${errors}`);
  return JSON.parse(text);
}
