/** A matrix inside an array: element `(row, i)` is `values[offset + row * stride + i]`. */
export interface Matrix {
  readonly values: Float32Array<ArrayBuffer>;
  readonly offset: number;
  readonly stride: number;
}

/** The right-hand matrix: `(i, column)` is `values[offset + i * stride + column * columnStride]`. */
export interface RightMatrix extends Matrix {
  readonly columnStride: number;
}

/** The extent of a product: `[rows, inner] * [inner, columns]`. */
export interface ProductSize {
  readonly rows: number;
  readonly inner: number;
  /** A multiple of 4. */
  readonly columns: number;
}

/**
 * Writes the product of two matrices. Every element is summed over the inner dimension from 0 up,
 * in double precision, and rounded once: its value does not depend on how many rows there are.
 */
export function multiply(
  result: Matrix,
  left: Matrix,
  right: RightMatrix,
  { rows, inner, columns }: ProductSize,
): void {
  const a = left.values;
  const b = right.values;
  const out = result.values;
  const step = right.stride;
  const columnStep = right.columnStride;
  for (let column = 0; column < columns; column += 4) {
    for (let row = 0; row < rows; row += 2) {
      // With an odd number of rows the last one is computed twice.
      const next = Math.min(row + 1, rows - 1);
      let at0 = left.offset + row * left.stride;
      let at1 = left.offset + next * left.stride;
      let b0 = right.offset + column * columnStep;
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      let t0 = 0;
      let t1 = 0;
      let t2 = 0;
      let t3 = 0;
      for (const end = at0 + inner; at0 < end; at0++, at1++, b0 += step) {
        const b1 = b0 + columnStep;
        const b2 = b1 + columnStep;
        const x = a[at0] ?? 0;
        const y = a[at1] ?? 0;
        const w0 = b[b0] ?? 0;
        const w1 = b[b1] ?? 0;
        const w2 = b[b2] ?? 0;
        const w3 = b[b2 + columnStep] ?? 0;
        s0 += x * w0;
        s1 += x * w1;
        s2 += x * w2;
        s3 += x * w3;
        t0 += y * w0;
        t1 += y * w1;
        t2 += y * w2;
        t3 += y * w3;
      }
      const out0 = result.offset + row * result.stride + column;
      out[out0] = s0;
      out[out0 + 1] = s1;
      out[out0 + 2] = s2;
      out[out0 + 3] = s3;
      const out1 = result.offset + next * result.stride + column;
      out[out1] = t0;
      out[out1 + 1] = t1;
      out[out1 + 2] = t2;
      out[out1 + 3] = t3;
    }
  }
}
