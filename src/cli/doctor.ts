import { AdapterError } from "../adapter/errors.ts";
import { ConfigError } from "../base/config_error.ts";
import type { L2Config } from "../l2/adapter_config.ts";
import { type CliCommand, type CommandArgs, type CommandContext, CommandError } from "./command.ts";
import { checkDirectory } from "./doctor_directory.ts";
import { checkHost } from "./doctor_host.ts";
import { checkHits, checkStore } from "./doctor_store.ts";
import { Findings } from "./findings.ts";
import { l2Args, readL2Config } from "./l2_config.ts";
import { filterArgs } from "./objects.ts";
import { ADAPTER_PERMISSIONS, pathsIn } from "./permissions.ts";
import { openStore } from "./stores.ts";

/** `kvtier doctor`: says what is wrong, what is slow, and why nothing would be hit. */
export const doctorCommand: CliCommand = {
  description: "Say what is wrong, what is slow, and why nothing would be hit",
  details: [
    "Checks the WebGPU device, permissions, clock and workers, and for each adapter its directory or server, a round trip with an object of 1 MiB, and the stored objects. Nothing is created but that object, which is removed again.",
    "The exit code is 1 if something is wrong.",
  ],
  options: {
    ...l2Args,
    model: { ...filterArgs.model, description: "Model whose prompts should be hit" },
    salt: { ...filterArgs.salt, description: "Cache salt of these prompts; --salt= for none" },
  },
  permissions: ["--allow-sys=uid,statfs for directories", ...ADAPTER_PERMISSIONS],
  examples: [
    "doctor",
    `doctor --l2-adapter '{"type":"fs","base_path":"./kv-cache"}' --model llama-3`,
    "doctor --l2-config l2.jsonc --json",
  ],
  run: async (args, context) => {
    const { out, host } = context;
    const hasAdapters = args.values["l2-adapter"] ?? args.values["l2-config"];
    const configs = hasAdapters === undefined ? [] : await readL2Config(args.raw);
    const findings = new Findings(out);
    await checkHost(findings, host);
    for (const config of configs) {
      host.signal.throwIfAborted();
      await checkAdapter(findings, config, args, context);
    }
    if (configs.length === 0) {
      findings.add(
        "adapters",
        "note",
        "none given: with --l2-adapter or --l2-config, they are tried",
      );
    }
    const [wrong, slow] = [findings.count("wrong"), findings.count("slow")];
    out.print(`${wrong} wrong, ${slow} slow`);
    out.json({ wrong, slow, findings: findings.list });
    return wrong === 0;
  },
};

async function checkAdapter(
  findings: Findings,
  config: L2Config,
  args: CommandArgs,
  context: CommandContext,
): Promise<void> {
  const { model, salt } = args.values;
  try {
    for (const { path } of pathsIn(config)) {
      if (!await checkDirectory(findings, path, config)) return;
    }
    await using store = await openStore(args, context, config);
    await checkStore(findings, store.guard);
    const { signal } = context.host;
    await checkHits(findings, store.guard, { config, wanted: { model, salt }, signal });
  } catch (error) {
    const isExpected = error instanceof ConfigError || error instanceof AdapterError ||
      error instanceof CommandError || error instanceof Deno.errors.NotCapable ||
      error instanceof Deno.errors.PermissionDenied;
    if (!isExpected) throw error;
    findings.add(config.type, "wrong", error.message);
  }
}
