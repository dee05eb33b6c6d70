import { adaptersCommand } from "./adapters.ts";
import { checkCommand } from "./check.ts";
import type { CommandGroup } from "./command.ts";
import { completionsCommand } from "./completions.ts";
import { doctorCommand } from "./doctor.ts";
import { exportCommand } from "./export.ts";
import { forgetCommand } from "./forget.ts";
import { gcCommand } from "./gc.ts";
import { importCommand } from "./import.ts";
import { lsCommand } from "./ls.ts";
import { modelsCommand } from "./models.ts";
import { newCommand } from "./new_adapter.ts";
import { replayCommand } from "./replay.ts";
import { serveCommand } from "./serve.ts";
import { simulateCommand } from "./simulate.ts";
import { statCommand } from "./stat.ts";
import { verifyCommand } from "./verify.ts";

/** All commands. */
export const kvtier: CommandGroup = {
  description: "Tiered KV cache for LLM inference on WebGPU",
  commands: {
    adapters: adaptersCommand,
    check: checkCommand,
    completions: completionsCommand(() => kvtier),
    doctor: doctorCommand,
    export: exportCommand,
    forget: forgetCommand,
    gc: gcCommand,
    import: importCommand,
    ls: lsCommand,
    models: modelsCommand,
    new: newCommand,
    replay: replayCommand,
    serve: serveCommand,
    simulate: simulateCommand,
    stat: statCommand,
    verify: verifyCommand,
  },
};
