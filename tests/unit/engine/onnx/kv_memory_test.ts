import { assertEquals } from "@std/assert";
import { readSignature } from "../../../../src/engine/onnx/decoder_signature.ts";
import { kvMemoryFor } from "../../../../src/engine/onnx/kv_memory.ts";
import type { OrtTensor, OrtTensorFactory } from "../../../../src/engine/onnx/ort.ts";
import { WebGpuDevice } from "../../../../src/memory/webgpu_device.ts";
import { gpuTest } from "../../../support/devices.ts";

gpuTest("KV that the device cannot hold is no error of the engine's", async (gpu) => {
  using device = WebGpuDevice.adopt(gpu);
  const shape = [1, 2, "tokens", 64];
  const kv = (name: string) => ({ name, isTensor: true, type: "float32", shape });
  const ids = { name: "input_ids", isTensor: true, type: "int64", shape: [1, "tokens"] };
  const logits = { name: "logits", isTensor: true, type: "float32", shape: [1, "tokens", 8] };
  const signature = readSignature({
    inputMetadata: [ids, kv("past_key_values.0.key"), kv("past_key_values.0.value")],
    outputMetadata: [logits, kv("present.0.key"), kv("present.0.value")],
  });
  const buffers: GPUBuffer[] = [];
  const tensors = {
    ofBuffer: (_: string, buffer: GPUBuffer) => {
      buffers.push(buffer);
      return { gpuBuffer: buffer } as unknown as OrtTensor;
    },
  } as unknown as OrtTensorFactory;
  gpu.pushErrorScope("validation");
  gpu.pushErrorScope("out-of-memory");
  kvMemoryFor(device, signature, tensors).allocate(2 ** 40);
  const errors = [await gpu.popErrorScope(), await gpu.popErrorScope()];
  assertEquals(errors, [null, null]);
  for (const buffer of buffers) buffer.destroy();
});
