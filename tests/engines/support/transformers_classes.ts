/** The parts of transformers.js's classes that the cache uses: a tensor around one of the runtime. */
export class Tensor {
  readonly ort_tensor: unknown;
  constructor(tensor: unknown) {
    this.ort_tensor = tensor;
  }
}

/** Holds K and V by the names of the model's inputs. */
export class DynamicCache {
  constructor(entries: object) {
    Object.assign(this, entries);
  }
}
