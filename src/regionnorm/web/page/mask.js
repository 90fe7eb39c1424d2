// What is painted: drawn for the screen, and as the picture that the server gets.

const COLOUR = 'rgb(255, 20, 100)';
const SHARE_SIDE = 320;
const STRIP = 2 ** 22; // pixels that are drawn at a time of a mask that is saved

const LAYERS = 24; // of which a soft edge consists, at most
const BAND = 2; // pixels that each is wide, at least

// Draw items, in pixels of the mask. `masks` maps numbers of loaded masks to {small, whole, size}.
// `hard`: what covers more than half covers all, and nothing else anything.
export function drawItems(pen, items, masks, scale, hard = false) {
  for (const item of items) {
    if (item.kind === 'stroke') drawStroke(pen, item, 0, hard);
    else if (item.kind === 'mask' && masks.has(item.number)) {
      const entry = masks.get(item.number);
      const { small, whole } = hard ? hardened(entry) : entry;
      const box = item.box ?? [0, 0, ...entry.size];
      pen.globalCompositeOperation = 'source-over';
      // Scaling many pixels down takes long; the small one looks the same.
      pen.imageSmoothingEnabled = scale < 1;
      pen.drawImage(scale * box[2] <= small.width ? small : whole, ...box);
    }
  }
}

export function drawStroke(pen, item, from = 0, hard = false) {
  pen.globalCompositeOperation = item.erase ? 'destination-out' : 'source-over';
  pen.strokeStyle = pen.fillStyle = COLOUR;
  pen.lineCap = pen.lineJoin = 'round';
  const points = item.points.slice(Math.max(0, from - 1));
  for (const { width, alpha } of layersOf(item, hard)) {
    pen.globalAlpha = alpha;
    drawLine(pen, points, width);
  }
  pen.globalAlpha = 1;
}

// A soft edge is made of lines over each other, each narrower, until the innermost covers all.
function layersOf({ width, soft = 0 }, hard) {
  if (!soft) return [{ width, alpha: 1 }];
  if (hard) return [{ width: width * (1 - soft / 2), alpha: 1 }]; // where it covers half
  const count = Math.max(3, Math.min(LAYERS, Math.ceil((width * soft) / 2 / BAND)));
  let below = 0;
  return Array.from({ length: count }, (_, index) => {
    const share = (index + 1) / count;
    const cover = share * share * (3 - 2 * share);
    const alpha = below < 1 ? (cover - below) / (1 - below) : 1;
    below = cover;
    return { width: width * (1 - soft * ((index + 0.5) / count)), alpha };
  });
}

function drawLine(pen, points, width) {
  pen.lineWidth = width;
  pen.beginPath();
  if (points.length === 1) {
    pen.arc(...points[0], width / 2, 0, 2 * Math.PI);
    pen.fill();
    return;
  }
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.stroke();
}

// Whether anything of the mask is neither painted nor not.
export function isSoft(items, masks) {
  return items.some((item) => (item.kind === 'stroke' ? item.soft : masks.get(item.number)?.soft));
}

function hardened(entry) {
  if (!entry.soft) return entry;
  entry.hard ??= Object.fromEntries(
    ['small', 'whole'].map((name) => {
      const { canvas, pen } = blank(entry[name].width, entry[name].height);
      pen.drawImage(entry[name], 0, 0);
      const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
      for (let index = 3; index < pixels.data.length; index += 4) pixels.data[index] = pixels.data[index] > 127 ? 255 : 0;
      pen.putImageData(pixels, 0, 0);
      return [name, canvas];
    }),
  );
  return entry.hard;
}

// The box around what items may paint, [left, top, right, bottom] in whole pixels of the mask.
export function boundsOf(items, size) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const item of items) {
    if (item.kind === 'mask') return [0, 0, ...size];
    if (item.kind !== 'stroke' || item.erase) continue;
    const reach = item.width / 2 + 1;
    for (const [x, y] of item.points) {
      [left, top] = [Math.min(left, x - reach), Math.min(top, y - reach)];
      [right, bottom] = [Math.max(right, x + reach), Math.max(bottom, y + reach)];
    }
  }
  [left, top] = [Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top))];
  [right, bottom] = [Math.min(size[0], Math.ceil(right)), Math.min(size[1], Math.ceil(bottom))];
  return right > left && bottom > top ? [left, top, right, bottom] : null;
}

// The painted part as a PNG: {blob, left, top}, white = hole; null where nothing is painted. Soft
// edges stay gray, unless `hard`.
export async function exportMask(items, size, masks, hard) {
  const bounds = boundsOf(items, size);
  if (!bounds) return null;
  const [left, top, right, bottom] = bounds;
  const { canvas, pen } = blank(right - left, bottom - top);
  pen.translate(-left, -top);
  drawItems(pen, items, masks, 1, hard);
  if (!whiten(pen, canvas, !hard && isSoft(items, masks))) return null;
  return { blob: await asBlob(canvas), left, top };
}

// The whole mask as a file of the photo's size. It is drawn and written in strips, since phones
// refuse canvases as large as large photos.
export async function wholeMask(items, photo, masks, hard) {
  const { width, height } = photo;
  const soft = !hard && isSoft(items, masks);
  const packing = new CompressionStream('deflate');
  const packed = new Response(packing.readable).arrayBuffer();
  const writer = packing.writable.getWriter();
  const rows = Math.max(1, Math.floor(STRIP / width));
  for (let top = 0; top < height; top += rows) {
    const { canvas, pen } = blank(width, Math.min(rows, height - top));
    pen.translate(0, -top);
    pen.scale(width / photo.canvas[0], height / photo.canvas[1]);
    drawItems(pen, items, masks, 1, hard);
    whiten(pen, canvas, soft);
    await writer.write(grays(pen, canvas));
  }
  await writer.close();
  return grayPng(width, height, new Uint8Array(await packed));
}

// A canvas's rows as PNG has them, each after the number of its filter, which is none.
function grays(pen, { width, height }) {
  const { data } = pen.getImageData(0, 0, width, height);
  const bytes = new Uint8Array(height * (width + 1));
  for (let y = 0, from = 0, to = 0; y < height; y++) {
    bytes[to++] = 0;
    for (let x = 0; x < width; x++, from += 4) bytes[to++] = data[from];
  }
  return bytes;
}

function grayPng(width, height, packed) {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header[8] = 8; // bits of a pixel, which is a gray level
  const signature = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return new Blob([signature, chunk('IHDR', header), chunk('IDAT', packed), chunk('IEND', [])], { type: 'image/png' });
}

function chunk(type, data) {
  const bytes = new Uint8Array(data.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(data.length + 8, checksum(bytes.subarray(4, data.length + 8)));
  return bytes;
}

// CRC-32, as PNG wants it.
function checksum(bytes) {
  let sum = -1;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
}

// The share of the photo that is painted, about: counted on a small copy.
export function shareOf(items, size, masks) {
  const scale = Math.min(1, SHARE_SIDE / Math.max(...size));
  const { canvas, pen } = blank(Math.ceil(size[0] * scale), Math.ceil(size[1] * scale));
  pen.scale(scale, scale);
  drawItems(pen, items, masks, scale);
  const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let index = 3; index < data.length; index += 4) count += data[index] > 127;
  return count / (data.length / 4);
}

// What is painted becomes white on black, and the rims of hard strokes one or the other. Returns
// whether there is any hole.
function whiten(pen, canvas, soft) {
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
  const words = new Uint32Array(pixels.data.buffer);
  let any = false;
  for (let index = 0; index < words.length; index++) {
    const cover = words[index] >>> 24;
    any ||= cover > 127;
    const level = soft ? cover : cover > 127 ? 255 : 0;
    words[index] = 0xff000000 | (level << 16) | (level << 8) | level;
  }
  pen.putImageData(pixels, 0, 0);
  return any;
}

function blank(width, height) {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [width, height];
  return { canvas, pen: canvas.getContext('2d', { willReadFrequently: true }) };
}

function asBlob(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
}
