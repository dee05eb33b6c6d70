// Stores that connectors are tested with, outside the import map like fast-check.
export { default as Keyv } from "npm:keyv@^5.6.0";
export { default as Keyv4 } from "npm:keyv@^4.5.4";
export { createStorage } from "npm:unstorage@^1.17.6";
export { default as fsDriver } from "npm:unstorage@^1.17.6/drivers/fs-lite";
export { default as memoryDriver } from "npm:unstorage@^1.17.6/drivers/memory";
