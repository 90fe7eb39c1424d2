// What is painted: drawn for the screen, and as the picture that the server gets.

const COLOUR = 'rgb(255, 20, 100)';
const SHARE_SIDE = 320;

// Draw items, in pixels of the mask. `masks` maps numbers of loaded masks to {small, whole}.
export function drawItems(pen, items, masks, scale) {
  for (const item of items) {
    if (item.kind === 'stroke') drawStroke(pen, item);
    else if (item.kind === 'mask' && masks.has(item.number)) {
      const { small, whole, size } = masks.get(item.number);
      pen.globalCompositeOperation = 'source-over';
      // Scaling many pixels down takes long; the small one looks the same.
      pen.imageSmoothingEnabled = scale < 1;
      pen.drawImage(scale * size[0] <= small.width ? small : whole, 0, 0, ...size);
    }
  }
}

export function drawStroke(pen, item, from = 0) {
  pen.globalCompositeOperation = item.erase ? 'destination-out' : 'source-over';
  pen.strokeStyle = pen.fillStyle = COLOUR;
  pen.lineWidth = item.width;
  pen.lineCap = pen.lineJoin = 'round';
  const points = item.points.slice(Math.max(0, from - 1));
  pen.beginPath();
  if (points.length === 1) {
    pen.arc(...points[0], item.width / 2, 0, 2 * Math.PI);
    pen.fill();
    return;
  }
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.stroke();
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

// The painted part as a PNG: {blob, left, top}, white = hole; null where nothing is painted.
export async function exportMask(items, size, masks) {
  const bounds = boundsOf(items, size);
  if (!bounds) return null;
  const [left, top, right, bottom] = bounds;
  const { canvas, pen } = blank(right - left, bottom - top);
  pen.translate(-left, -top);
  drawItems(pen, items, masks, 1);
  if (!harden(pen, canvas)) return null;
  return { blob: await asBlob(canvas), left, top };
}

// The whole mask as a file of the photo's size.
export async function wholeMask(items, photo, masks) {
  const { canvas, pen } = blank(photo.width, photo.height);
  pen.scale(photo.width / photo.canvas[0], photo.height / photo.canvas[1]);
  drawItems(pen, items, masks, 1);
  harden(pen, canvas);
  return asBlob(canvas);
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

// Soft edges of strokes become hard ones. Returns whether there is any hole.
function harden(pen, canvas) {
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
  const words = new Uint32Array(pixels.data.buffer);
  let any = false;
  for (let index = 0; index < words.length; index++) {
    const hole = words[index] >>> 24 > 127;
    any ||= hole;
    words[index] = hole ? 0xffffffff : 0xff000000;
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
