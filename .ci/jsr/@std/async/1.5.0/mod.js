// @ts-self-types="./mod.d.ts"
// File by file, since the mod.js of this folder loads one that the package lacks.
export * from "npm:deno-std@^1.4.0/async/abortable.js";
export * from "npm:deno-std@^1.4.0/async/deadline.js";
export * from "npm:deno-std@^1.4.0/async/delay.js";
export * from "npm:deno-std@^1.4.0/async/pool.js";
export * from "npm:deno-std@^1.4.0/async/retry.js";
