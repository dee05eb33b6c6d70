import S3rver from "npm:s3rver@^3.7.1";

/** Runs s3rver in a directory, with a bucket for each further argument, and prints its port. */
const [directory = "", ...buckets] = Deno.args;
const server = new S3rver({
  directory,
  address: "127.0.0.1",
  port: 0,
  silent: true,
  configureBuckets: buckets.map((name) => ({ name, configs: [] })),
});
const { port } = await server.run();
await Deno.stdout.write(new TextEncoder().encode(String(port)));
