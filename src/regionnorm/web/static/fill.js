// Fills the hole of a photo of any size, as the Python package does with its network alone.
//
// Pixels are bytes, three for each place, row by row; masks are bytes, 1 = hole. The network is a
// function (image, mask, height, width) -> image of Float32Arrays, channel by channel, in [0, 1].

const REACH = 64; // pixels from a known one up to which a fill is relied on at one scale
const BAND = 24; // along a deep hole's border, filled anew at each doubling
const ONE_PASS = 768 * 768; // pixels that go through the network at once
const [TILE, MARGIN, RAMP] = [512, 48, 64]; // of what is larger: tiles, their context, their blend
const CONTEXT = 96; // known pixels around a hole that the network sees
const LEAST = 256; // side of a window, where the photo is as large
const BLOCK = 32; // holes nearer than about two blocks are filled together
const RESIZED = 512;
const LEAST_SIDE = 16; // networks take no smaller pictures

export async function fillHoles(run, pixels, hole, height, width) {
  const result = pixels.slice();
  const network = conditioned(run);
  for (const { window, numbers, labels, columns } of parts(hole, height, width)) {
    const [h, w] = [window.bottom - window.top, window.right - window.left];
    const inside = cut(hole, width, window, 1);
    const own = ownPixels(hole, width, labels, columns, numbers, window);
    const photo = cut(pixels, width, window, 3);
    const filled = await coarseToFine(network, photo, inside, h, w, levelsOf(inside, own, h, w));
    for (let y = 0, i = 0; y < h; y++)
      for (let x = 0; x < w; x++, i++)
        if (own[i]) {
          const at = 3 * ((window.top + y) * width + window.left + x);
          for (let c = 0; c < 3; c++) result[at + c] = filled[3 * i + c];
        }
  }
  return result;
}

// --- geometry ------------------------------------------------------------------------------------

function cut(values, width, { top, left, bottom, right }, depth) {
  const row = (right - left) * depth;
  const result = new values.constructor((bottom - top) * row);
  for (let y = top; y < bottom; y++) {
    const from = (y * width + left) * depth;
    result.set(values.subarray(from, from + row), (y - top) * row);
  }
  return result;
}

export function dilate(mask, height, width, radius) {
  const across = new Uint8Array(mask.length);
  const grown = new Uint8Array(mask.length);
  const spread = (source, target, start, step, count) => {
    for (let i = 0, reach = -1; i < count; i++) {
      if (source[start + i * step]) reach = i + radius;
      if (i <= reach) target[start + i * step] = 1;
    }
    for (let i = count - 1, reach = count; i >= 0; i--) {
      if (source[start + i * step]) reach = i - radius;
      if (i >= reach) target[start + i * step] = 1;
    }
  };
  for (let y = 0; y < height; y++) spread(mask, across, y * width, 1, width);
  for (let x = 0; x < width; x++) spread(across, grown, x, width, height);
  return grown;
}

export function labelRegions(mask, height, width) {
  const labels = new Int32Array(mask.length);
  let count = 0;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    labels[start] = ++count;
    for (const stack = [start]; stack.length; ) {
      const at = stack.pop();
      const [y, x] = [Math.floor(at / width), at % width];
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++)
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const next = v * width + u;
          if (!mask[next] || labels[next]) continue;
          labels[next] = count;
          stack.push(next);
        }
    }
  }
  return { labels, count };
}

function bounding(mask, width) {
  const box = { top: Infinity, left: Infinity, bottom: 0, right: 0 };
  mask.forEach((inside, i) => {
    if (!inside) return;
    const [y, x] = [Math.floor(i / width), i % width];
    box.top = Math.min(box.top, y);
    box.left = Math.min(box.left, x);
    box.bottom = Math.max(box.bottom, y + 1);
    box.right = Math.max(box.right, x + 1);
  });
  return box;
}

function grow(window, margin, height, width, atLeast = 0) {
  const along = (low, high, limit) => {
    const missing = Math.max(2 * margin, atLeast - (high - low));
    low -= Math.floor(missing / 2);
    high += missing - Math.floor(missing / 2);
    if (low < 0 && high > limit) return [0, limit];
    const shift = Math.max(0, -low) - Math.max(0, high - limit);
    return [Math.max(0, low + shift), Math.min(limit, high + shift)];
  };
  const [top, bottom] = along(window.top, window.bottom, height);
  const [left, right] = along(window.left, window.right, width);
  return { top, left, bottom, right };
}

const area = (box) => (box.bottom - box.top) * (box.right - box.left);

// --- windows -------------------------------------------------------------------------------------

function parts(hole, height, width) {
  const [rows, columns] = [Math.ceil(height / BLOCK), Math.ceil(width / BLOCK)];
  const blocks = new Uint8Array(rows * columns);
  hole.forEach((inside, i) => {
    if (!inside) return;
    const [y, x] = [Math.floor(i / width), i % width];
    blocks[Math.floor(y / BLOCK) * columns + Math.floor(x / BLOCK)] = 1;
  });
  const { labels, count } = labelRegions(dilate(blocks, rows, columns, 1), rows, columns);
  const groups = [];
  for (let number = 1; number <= count; number++)
    groups.push(groupOf(hole, height, width, labels, columns, number));
  return joined(groups).map((group) => ({ ...group, labels, columns }));
}

function groupOf(hole, height, width, labels, columns, number) {
  const blocks = bounding(labels.map((label) => label === number), columns);
  const space = {
    top: BLOCK * blocks.top,
    left: BLOCK * blocks.left,
    bottom: Math.min(height, BLOCK * blocks.bottom),
    right: Math.min(width, BLOCK * blocks.right),
  };
  const own = ownPixels(hole, width, labels, columns, [number], space);
  const exact = bounding(own, space.right - space.left);
  const box = {
    top: exact.top + space.top,
    left: exact.left + space.left,
    bottom: exact.bottom + space.top,
    right: exact.right + space.left,
  };
  const around = grow(box, 1, height, width);
  const [h, w] = [around.bottom - around.top, around.right - around.left];
  const mine = ownPixels(hole, width, labels, columns, [number], around);
  const levels = levelsOf(cut(hole, width, around, 1), mine, h, w);
  return { window: grow(box, CONTEXT << levels, height, width, LEAST), levels, numbers: [number] };
}

function ownPixels(hole, width, labels, columns, numbers, { top, left, bottom, right }) {
  const own = new Uint8Array((bottom - top) * (right - left));
  const wanted = new Set(numbers);
  for (let y = top, i = 0; y < bottom; y++)
    for (let x = left; x < right; x++, i++)
      if (hole[y * width + x])
        own[i] = wanted.has(labels[Math.floor(y / BLOCK) * columns + Math.floor(x / BLOCK)]);
  return own;
}

// Shallow groups are joined as long as one window is no larger than the two that it stands for.
function joined(groups) {
  const deep = groups.filter((group) => group.levels > 0);
  const left = groups.filter((group) => group.levels === 0);
  const done = [];
  while (left.length) {
    const group = left.pop();
    let [best, most, hull] = [-1, -1, null];
    left.forEach((other, index) => {
      const both = {
        top: Math.min(other.window.top, group.window.top),
        left: Math.min(other.window.left, group.window.left),
        bottom: Math.max(other.window.bottom, group.window.bottom),
        right: Math.max(other.window.right, group.window.right),
      };
      const gain = area(both) <= ONE_PASS ? area(other.window) + area(group.window) - area(both) : -1;
      if (gain > most) [best, most, hull] = [index, gain, both];
    });
    if (most < 0) {
      done.push(group);
      continue;
    }
    const [other] = left.splice(best, 1);
    left.push({ window: hull, levels: 0, numbers: [...group.numbers, ...other.numbers] });
  }
  return [...deep, ...done];
}

// Halvings after which every pixel of `own` is within reach of a known one.
function levelsOf(hole, own, height, width) {
  const known = hole.map((inside) => 1 - inside);
  if (!known.includes(1)) return halvings(Math.max(height, width));
  let [grown, radius, levels] = [dilate(known, height, width, REACH), REACH, 0];
  while (own.some((inside, i) => inside && !grown[i])) {
    grown = dilate(grown, height, width, radius);
    radius *= 2;
    levels++;
  }
  return levels;
}

function halvings(side) {
  return Math.max(0, 32 - Math.clz32(Math.ceil(side / RESIZED) - 1));
}

// --- scales --------------------------------------------------------------------------------------

async function coarseToFine(run, pixels, hole, height, width, levels) {
  if (levels === 0) return onePass(run, pixels, hole, height, width);
  const small = halve(pixels, hole, height, width);
  const filled = await coarseToFine(run, small.pixels, small.hole, small.height, small.width, levels - 1);
  const large = enlarge(filled, small.height, small.width, height, width);
  const guide = pixels.slice();
  hole.forEach((inside, i) => {
    if (inside) for (let c = 0; c < 3; c++) guide[3 * i + c] = large[3 * i + c];
  });
  const near = dilate(hole.map((inside) => 1 - inside), height, width, BAND);
  const band = hole.map((inside, i) => inside & near[i]);
  if (!band.includes(1)) return guide; // nothing is known
  // What is around is as wide as a coarse copy needs it; here a band needs less.
  const window = grow(bounding(band, width), CONTEXT, height, width, LEAST);
  const [h, w] = [window.bottom - window.top, window.right - window.left];
  const refined = await onePass(run, cut(guide, width, window, 3), cut(band, width, window, 1), h, w);
  for (let y = 0; y < h; y++) {
    const row = refined.subarray(3 * y * w, 3 * (y + 1) * w);
    guide.set(row, 3 * ((window.top + y) * width + window.left));
  }
  return guide;
}

// The mean of what is known in each block of four; hole where nothing is.
function halve(pixels, hole, height, width) {
  const [h, w] = [Math.ceil(height / 2), Math.ceil(width / 2)];
  const [small, gap] = [new Uint8Array(3 * h * w), new Uint8Array(h * w)];
  for (let y = 0; y < h; y++)
    for (let x = 0; x < w; x++) {
      let [count, red, green, blue] = [0, 0, 0, 0];
      for (let v = 2 * y; v < 2 * y + 2; v++)
        for (let u = 2 * x; u < 2 * x + 2; u++) {
          const at = Math.min(v, height - 1) * width + Math.min(u, width - 1);
          if (hole[at]) continue;
          count++;
          red += pixels[3 * at];
          green += pixels[3 * at + 1];
          blue += pixels[3 * at + 2];
        }
      const [i, share] = [y * w + x, Math.max(count, 1)];
      gap[i] = count === 0;
      [red, green, blue].forEach((sum, c) => {
        small[3 * i + c] = Math.floor((sum + Math.floor(share / 2)) / share);
      });
    }
  return { pixels: small, hole: gap, height: h, width: w };
}

const FIXED = 2 ** 22; // weights are rounded to its parts, as Pillow's are

// Bicubic, by two; halving rounded odd sides up, so that the copy may stand for a little more.
function enlarge(pixels, height, width, tall, wide) {
  const across = stretched(pixels, height, width, 3, wide, wide / 2, false);
  return stretched(across, height, wide, 3, tall, tall / 2, true);
}

function stretched(pixels, height, width, depth, count, box, down) {
  const limit = down ? height : width;
  const [rows, columns] = down ? [count, width] : [height, count];
  const result = new Uint8ClampedArray(rows * columns * depth);
  for (let i = 0; i < count; i++) {
    const centre = ((i + 0.5) * box) / count;
    const first = Math.max(0, Math.floor(centre - 1.5));
    const last = Math.min(limit, Math.floor(centre + 2.5));
    let weights = [];
    for (let j = first; j < last; j++) weights.push(cubic(Math.abs(j - centre + 0.5)));
    const total = weights.reduce((a, b) => a + b, 0);
    weights = weights.map((weight) => Math.round((weight / total) * FIXED));
    for (let k = 0; k < (down ? columns : rows); k++)
      for (let c = 0; c < depth; c++) {
        let sum = 0;
        weights.forEach((weight, j) => {
          const at = down ? (first + j) * width + k : k * width + first + j;
          sum += weight * pixels[depth * at + c];
        });
        result[depth * (down ? i * columns + k : k * columns + i) + c] = Math.floor(sum / FIXED + 0.5);
      }
  }
  return new Uint8Array(result.buffer);
}

function cubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// --- the network ---------------------------------------------------------------------------------

async function onePass(run, pixels, hole, height, width) {
  const result = pixels.slice();
  const put = (i, value, c) => (result[3 * i + c] = Math.round(255 * Math.min(1, Math.max(0, value))));
  if (hole.length <= ONE_PASS) {
    const filled = await runOnce(run, pixels, hole, height, width);
    hole.forEach((inside, i) => {
      if (inside) for (let c = 0; c < 3; c++) put(i, filled[3 * i + c], c);
    });
    return result;
  }
  const box = bounding(hole, width);
  const [h, w] = [box.bottom - box.top, box.right - box.left];
  const [total, weight] = [new Float32Array(3 * h * w), new Float32Array(h * w)];
  for (const down of spans(box.top, box.bottom, height))
    for (const across of spans(box.left, box.right, width)) {
      const tile = { top: down.first, left: across.first, bottom: down.last, right: across.last };
      const inside = cut(hole, width, tile, 1);
      const [tall, wide] = [tile.bottom - tile.top, tile.right - tile.left];
      const share = (i) => down.weights[Math.floor(i / wide)] * across.weights[i % wide];
      if (!inside.some((part, i) => part && share(i) > 0)) continue;
      const filled = await runOnce(run, cut(pixels, width, tile, 3), inside, tall, wide);
      for (let i = 0; i < tall * wide; i++) {
        const y = tile.top + Math.floor(i / wide) - box.top;
        const x = tile.left + (i % wide) - box.left;
        if (y < 0 || x < 0 || y >= h || x >= w) continue;
        weight[y * w + x] += share(i);
        for (let c = 0; c < 3; c++) total[3 * (y * w + x) + c] += filled[3 * i + c] * share(i);
      }
    }
  for (let i = 0; i < h * w; i++) {
    const at = (box.top + Math.floor(i / w)) * width + box.left + (i % w);
    if (!hole[at]) continue;
    for (let c = 0; c < 3; c++) put(at, total[3 * i + c] / Math.max(weight[i], 1e-6), c);
  }
  return result;
}

// Overlapping spans that cover `low` to `high` along one axis, with the weights of their places.
function spans(low, high, limit) {
  const [start, stop] = [Math.max(0, low - MARGIN), Math.min(limit, high + MARGIN)];
  const step = TILE - 2 * MARGIN - RAMP;
  const count = Math.max(1, Math.ceil((stop - start - TILE) / step) + 1);
  return Array.from({ length: count }, (_, index) => {
    const first = Math.max(0, Math.min(start + index * step, limit - TILE));
    const last = Math.min(limit, first + TILE);
    const weights = Float32Array.from({ length: last - first }, (_, i) => {
      const position = first + i + 0.5;
      const rise = first > 0 ? (position - first - MARGIN) / RAMP : 1;
      const fall = last < limit ? (last - position - MARGIN) / RAMP : 1;
      return Math.min(1, Math.max(0, Math.min(rise, fall)));
    });
    return { first, last, weights };
  });
}

async function runOnce(run, pixels, hole, height, width) {
  const [h, w] = [Math.max(height, LEAST_SIDE), Math.max(width, LEAST_SIDE)];
  const [image, mask] = [new Float32Array(3 * h * w), new Float32Array(h * w)];
  const mirrored = (i, side) => {
    const place = i % (2 * side);
    return place < side ? place : 2 * side - 1 - place;
  };
  for (let y = 0, i = 0; y < h; y++)
    for (let x = 0; x < w; x++, i++) {
      const at = mirrored(y, height) * width + mirrored(x, width);
      mask[i] = hole[at];
      // Zeros in the hole: the result may not depend on what the hole covers.
      if (!hole[at]) for (let c = 0; c < 3; c++) image[c * h * w + i] = pixels[3 * at + c] / 255;
    }
  const output = await run(image, mask, h, w);
  const filled = new Float32Array(3 * height * width);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) filled[3 * (y * width + x) + c] = output[c * h * w + y * w + x];
  return filled;
}

// --- between photo and network -------------------------------------------------------------------

const [CONTRAST, MOST_GAIN] = [0.8, 100];
const [NEAR, BESIDE] = [64, 16];
const [EVEN, UNEVEN] = [2 / 255, 8 / 255];

// Pictures of little contrast are stretched before the network and taken back behind it, and a fill
// stays within what the known pixels beside its hole show.
function conditioned(run) {
  return async (image, mask, height, width) => {
    const { middle, target, gain } = stretch(image, mask, height, width);
    let output;
    if (gain > 1) {
      const size = height * width;
      const shown = image.map((value, i) =>
        mask[i % size] ? 0 : Math.min(1, Math.max(0, (value - middle) * gain + target)),
      );
      output = (await run(shown, mask, height, width)).map((v) => (v - target) / gain + middle);
    } else output = await run(image, mask, height, width);
    return believed(image, output, mask, height, width);
  };
}

function stretch(image, mask, height, width) {
  const near = dilate(Uint8Array.from(mask), height, width, NEAR);
  const size = height * width;
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < 3 * size; i++) {
    if (!near[i % size] || mask[i % size]) continue;
    low = Math.min(low, image[i]);
    high = Math.max(high, image[i]);
  }
  if (low > high) return { middle: 0, target: 0, gain: 1 };
  const gain = Math.min(MOST_GAIN, Math.max(1, CONTRAST / Math.max(high - low, 1e-9)));
  const [middle, half] = [(low + high) / 2, (gain * (high - low)) / 2];
  return { middle, target: Math.min(Math.max(middle, half), 1 - half), gain };
}

function believed(image, output, mask, height, width) {
  const size = height * width;
  const near = dilate(Uint8Array.from(mask), height, width, BESIDE);
  const { labels, count } = labelRegions(near, height, width);
  // Green, and how far red and blue are from it: exactly 0 for gray.
  const plane = (values, c, i) => values[c * size + i] - (c === 1 ? 0 : values[size + i]);
  const limits = [0, 1, 2].map(() =>
    Array.from({ length: count + 1 }, () => ({ low: Infinity, high: -Infinity })),
  );
  for (let i = 0; i < size; i++) {
    if (!labels[i] || mask[i]) continue;
    for (let c = 0; c < 3; c++) {
      const limit = limits[c][labels[i]];
      const value = plane(image, c, i);
      limit.low = Math.min(limit.low, value);
      limit.high = Math.max(limit.high, value);
    }
  }
  for (const limit of limits.flat()) if (limit.low > limit.high) [limit.low, limit.high] = [-9, 9];
  const even = Float32Array.from({ length: count + 1 }, (_, label) => {
    const range = Math.max(...limits.map((each) => each[label].high - each[label].low));
    return label ? Math.min(1, Math.max(0, (UNEVEN - range) / (UNEVEN - EVEN))) : 0;
  });
  const smooth = even.some((share) => share > 0) ? pushPull(image, mask, height, width) : null;
  const result = output.slice();
  for (let i = 0; i < size; i++) {
    if (!mask[i]) continue;
    const [red, green, blue] = [0, 1, 2].map((c) => {
      let value = plane(output, c, i);
      const share = even[labels[i]];
      if (share > 0) value += share * (plane(smooth, c, i) - value);
      const limit = limits[c][labels[i]];
      return Math.min(limit.high, Math.max(limit.low, value));
    });
    result[i] = green + red;
    result[size + i] = green;
    result[2 * size + i] = green + blue;
  }
  return result;
}

// --- fill by diffusion ---------------------------------------------------------------------------

export function pushPull(image, mask, height, width, smoothing = 4) {
  const known = Float32Array.from(mask, (inside) => 1 - inside);
  const size = height * width;
  const levels = [{ colour: image.map((v, i) => v * known[i % size]), weight: known, height, width }];
  while (Math.max(levels.at(-1).height, levels.at(-1).width) > 1) levels.push(push(levels.at(-1)));
  const last = levels.pop();
  let filled = last.colour.map((v) => v + (1 - last.weight[0]) * 0.5);
  let coarse = { height: 1, width: 1 };
  for (const level of levels.reverse()) {
    filled = pull(filled, coarse, level, smoothing);
    coarse = level;
  }
  return filled;
}

function push({ colour, weight, height, width }) {
  const [h, w] = [Math.ceil(height / 2), Math.ceil(width / 2)];
  const [smaller, present] = [new Float32Array(3 * h * w), new Float32Array(h * w)];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const to = (y >> 1) * w + (x >> 1);
      present[to] += weight[y * width + x] / 4;
      for (let c = 0; c < 3; c++)
        smaller[c * h * w + to] += colour[c * height * width + y * width + x] / 4;
    }
  const result = smaller.map((v, i) => v / Math.max(present[i % (h * w)], 1e-3));
  return { colour: result, weight: present.map((v) => Number(v > 0)), height: h, width: w };
}

function pull(filled, coarse, { colour, weight, height, width }, smoothing) {
  const size = height * width;
  const at = (i, side) => {
    const place = Math.max(0, (i + 0.5) / 2 - 0.5);
    const low = Math.min(side - 1, Math.floor(place));
    return [low, Math.min(side - 1, low + 1), place - Math.floor(place)];
  };
  const result = new Float32Array(3 * size);
  for (let y = 0; y < height; y++) {
    const [above, below, down] = at(y, coarse.height);
    for (let x = 0; x < width; x++) {
      const i = y * width + x;
      const [left, right, across] = at(x, coarse.width);
      for (let c = 0; c < 3; c++) {
        const start = c * coarse.height * coarse.width;
        const pick = (v, u) => filled[start + v * coarse.width + u];
        const upper = pick(above, left) + across * (pick(above, right) - pick(above, left));
        const lower = pick(below, left) + across * (pick(below, right) - pick(below, left));
        const gap = 1 - weight[i];
        result[c * size + i] = colour[c * size + i] + gap * (upper + down * (lower - upper));
      }
    }
  }
  let now = result;
  for (let turn = 0; turn < smoothing; turn++) {
    const next = now.slice();
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++) {
        const i = y * width + x;
        if (weight[i]) continue;
        const up = Math.max(0, y - 1) * width + x;
        const low = Math.min(height - 1, y + 1) * width + x;
        const left = y * width + Math.max(0, x - 1);
        const right = y * width + Math.min(width - 1, x + 1);
        for (let c = 0; c < 3; c++) {
          const k = c * size;
          next[k + i] = (now[k + up] + now[k + low] + now[k + left] + now[k + right]) / 4;
        }
      }
    now = next;
  }
  return now;
}
