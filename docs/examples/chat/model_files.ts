import { basename, join } from "@std/path";
import type { OnnxDecoderOptions } from "@kvtier/kvtier/onnx";
import { byteFormat, type ChatFormat, huggingFaceFormat } from "./chat_format.ts";
import { tinyDecoder } from "./tiny_model/tiny_decoder.ts";

/** A model and its format. */
export interface ChatModel {
  readonly id: string;
  readonly format: ChatFormat;
  readonly decoder: Pick<
    OnnxDecoderOptions,
    "model" | "externalData" | "config" | "contextTokens" | "name"
  >;
}

/** Names of weights in order of preference; smaller ones are faster on a CPU. */
const WEIGHTS = ["quantized", "q8", "int8", "q4", "q4f16", "fp16", ""];

/** Files read besides the weights. */
export const TEXT_FILES = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
];

/**
 * Selects the files with the weights of a model.
 *
 * @param paths Paths relative to the directory of the model.
 * @param wanted Name of the weights, such as `q4`. @default {the most preferred existing ones}
 * @throws {Error} If there are no such files.
 */
export function weightFiles(
  paths: readonly string[],
  wanted?: string,
): { model: string; data: string[] } {
  const fileOf = (name: string): string => `onnx/model${name === "" ? "" : `_${name}`}.onnx`;
  const names = wanted === undefined ? WEIGHTS : [wanted === "fp32" ? "" : wanted];
  const model = names.map(fileOf).find((file) => paths.includes(file));
  if (model === undefined) {
    const found = paths.filter((path) => path.endsWith(".onnx")).join(", ") || "none";
    throw new Error(`Model must have one of ${names.map(fileOf).join(", ")}: found ${found}`);
  }
  return { model, data: paths.filter((path) => dataOf(path) === model) };
}

/** The model that a file of external data belongs to: `model.onnx_data`, `model.onnx_data_1`, … */
function dataOf(path: string): string | undefined {
  return /^(.+)_data(_\d+)?$/.exec(path)?.[1];
}

/** Reads a model from a directory in the layout of Hugging Face. */
export async function openModelDirectory(directory: string, weights?: string): Promise<ChatModel> {
  const json = async (name: string): Promise<Record<string, unknown> | undefined> => {
    const text = await readIfThere(join(directory, name));
    return text === undefined ? undefined : JSON.parse(text);
  };
  const config = await json("config.json");
  const tokenizer = await json("tokenizer.json");
  const tokenizerConfig = await json("tokenizer_config.json");
  if (config === undefined || tokenizer === undefined || tokenizerConfig === undefined) {
    throw new Error(
      `${directory} must have config.json, tokenizer.json and tokenizer_config.json`,
    );
  }
  const generation = await json("generation_config.json") ?? {};
  const template = await readIfThere(join(directory, "chat_template.jinja"));
  const endTokens = [generation["eos_token_id"] ?? config["eos_token_id"]].flat()
    .filter((token) => typeof token === "number");
  const onnx = await Array.fromAsync(Deno.readDir(join(directory, "onnx")));
  const { model, data } = weightFiles(onnx.map(({ name }) => `onnx/${name}`), weights);
  const id = basename(directory);
  return {
    id,
    format: huggingFaceFormat({
      tokenizer,
      tokenizerConfig,
      endTokens,
      ...(template === undefined ? {} : { template }),
    }),
    decoder: {
      name: id,
      model: join(directory, model),
      externalData: Object.fromEntries(data.map((path) => [basename(path), join(directory, path)])),
      config,
    },
  };
}

/** Creates a tiny model with random weights and byte tokens, which generates nonsense. */
export function tinyModel(): ChatModel {
  const contextTokens = 4096;
  const { model } = tinyDecoder({
    // The fastest attention operator on a CPU.
    attention: "mha",
    vocabulary: 259,
    positions: contextTokens,
  });
  const decoder = { name: "tiny-nonsense", model, contextTokens };
  return { id: "tiny-nonsense", format: byteFormat(), decoder };
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
