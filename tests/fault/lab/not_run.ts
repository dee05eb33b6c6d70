/**
 * Reports that a test cannot run on this host.
 *
 * @param why The missing requirement.
 * @throws {Error} If `KVTIER_REQUIRE_FAULTS` is set, which requires the test to run.
 */
export async function notRun(t: Deno.TestContext, why: string): Promise<void> {
  if (Deno.env.get("KVTIER_REQUIRE_FAULTS")) throw new Error(`This test has to run here: ${why}`);
  await t.step(`${why}: not run`, () => {});
}
