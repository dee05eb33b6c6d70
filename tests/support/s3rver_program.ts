import { Buffer } from "node:buffer";
import S3rver from "s3rver";

const [directory = "", ...buckets] = Deno.args;
const server = new S3rver({
  directory,
  address: "127.0.0.1",
  port: 0,
  silent: true,
  configureBuckets: buckets.map((name) => ({ name, configs: [] })),
});
const { port } = await server.run();
console.log(port);
