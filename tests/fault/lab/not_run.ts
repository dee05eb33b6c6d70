/**
 * Shows that a test cannot run here.
 *
 * @param why What the host lacks.
 * @throws {Error} Where `KVTIER_REQUIRE_FAULTS` is set: there it has to run.
 */
export async function notRun(t: Deno.TestContext, why: string): Promise<void> {
  if (Deno.env.get("KVTIER_REQUIRE_FAULTS")) throw new Error(`This test has to run here: ${why}`);
  await t.step(`${why}: not run`, () => {});
}
