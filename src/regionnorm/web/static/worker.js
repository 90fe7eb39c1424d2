// The network, beside the page's own thread.

import * as ort from './ort/ort.wasm.bundle.min.mjs';
import { fillHoles } from './fill.js';

ort.env.wasm.wasmPaths = { wasm: new URL('./ort/ort-wasm-simd-threaded.wasm', import.meta.url).href };
// More threads share memory, which browsers allow where the server asks for isolation.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency) : 1;

// From the start: it takes seconds, in which the visitor paints.
const loading = ort.InferenceSession.create(new URL('./model.onnx', import.meta.url).href, {
  executionProviders: ['wasm'],
});
let unusable = false;
loading.catch(() => (unusable = true)); // told where it is waited for

async function network(image, mask, height, width) {
  const session = await loading;
  const { output } = await session.run({
    image: new ort.Tensor('float32', image, [1, 3, height, width]),
    mask: new ort.Tensor('float32', mask, [1, 1, height, width]),
  });
  return output.data;
}

self.onmessage = async ({ data: { pixels, hole, height, width } }) => {
  try {
    const start = performance.now();
    const filled = await fillHoles(network, pixels, hole, height, width);
    self.postMessage({ filled, seconds: (performance.now() - start) / 1000 }, [filled.buffer]);
  } catch (error) {
    self.postMessage({ error: String(error?.message ?? error), unusable });
  }
};
