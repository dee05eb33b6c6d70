import { assert, assertEquals, assertMatch } from "@std/assert";
import { adapterHelp } from "../../l2/adapter_config.ts";
import { samples } from "./samples.ts";
import type { SubjectCase } from "./subject.ts";

/** The module, its promises, and what outlives an adapter. */
export const lifetimeCases: readonly SubjectCase[] = [
  {
    name: "declares itself",
    check({ module }) {
      assertMatch(module.type, /^[a-z][a-z0-9_]*$/);
      assertMatch(module.summary, /\S/);
      for (const [key, { help }] of Object.entries(module.config)) {
        assertMatch(key, /^[a-z][a-z0-9_]*$/);
        assertMatch(help, /\S/, `help of ${key}`);
        assert(adapterHelp(module).includes(key));
      }
    },
  },
  {
    name: "declares what it promises",
    check({ adapter, module }) {
      const { shared, durable, evicts, maxObjectBytes, preferredBytesInFlight } =
        adapter.capabilities;
      if (module.capabilities !== undefined) {
        assertEquals(durable ?? false, module.capabilities.durable ?? false, "durable");
        assertEquals(shared ?? false, module.capabilities.shared ?? false, "shared");
      }
      for (const flag of [shared, durable, evicts]) assert([true, false, undefined].includes(flag));
      for (const bytes of [maxObjectBytes, preferredBytesInFlight]) {
        assert(bytes === undefined || bytes > 0);
      }
    },
  },
  {
    name: "another adapter with the same configuration sees the objects, where that is promised",
    async check(subject) {
      if (!subject.promises.shared) return;
      const given = samples(3);
      await using other = await subject.openAnother();
      await subject.store(given);
      await subject.assertHeld(given, other);
    },
  },
  {
    name: "objects survive a restart, where that is promised",
    async check(subject) {
      const given = samples(3);
      await subject.store(given);
      const isDurable = subject.promises.durable;
      await subject.restart();
      if (isDurable) await subject.assertHeld(given);
      else await subject.store(given);
    },
  },
  {
    name: "closes without having been used",
    check({ errors }) {
      assertEquals(errors, []);
    },
  },
];
