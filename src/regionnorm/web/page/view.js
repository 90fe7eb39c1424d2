// Where the person looks, and what is drawn there. Only pixels in sight are ever drawn, so that a
// stroke, an undo and a zoom take as long on a photo of 12 megapixels as on a small one.

import { drawItems, drawStroke } from './mask.js';

const MOST_ZOOM = 16; // screen pixels for a pixel of the photo
const LEAST = 0.7; // of the scale at which the photo fits
const MARGIN = 12; // screen pixels around a photo that fits
const SHARP = 1.15; // a small copy is drawn until it would be enlarged more than this

export class View {
  // `wantWhole` is called when the small copy of the picture is not sharp enough any more.
  constructor(stage, wantWhole) {
    this.stage = stage;
    this.wantWhole = wantWhole;
    this.canvases = ['photo', 'mask'].map((name) => stage.querySelector(`.rn-${name}`));
    [this.photoPen, this.maskPen] = this.canvases.map((canvas) => canvas.getContext('2d'));
    this.size = null; // of the picture, in pixels of the mask
    this.layers = this.before = null; // {small, whole, patches: [{bitmap, box}]}, boxes as shares
    this.items = [];
    this.masks = new Map();
    this.split = 0; // share of the stage's width, from the left, that shows `before`
    this.holdsBefore = false;
    [this.scale, this.x, this.y, this.fitted] = [1, 0, 0, true];
    this.stale = new Set();
    new ResizeObserver(() => this.resize()).observe(stage);
    this.resize();
  }

  // --- geometry ----------------------------------------------------------------------------------

  get fitScale() {
    const [width, height] = this.size;
    return Math.min((this.width - 2 * MARGIN) / width, (this.height - 2 * MARGIN) / height, 4);
  }

  resize() {
    const before = [this.width, this.height];
    [this.width, this.height] = [this.stage.clientWidth, this.stage.clientHeight];
    this.ratio = window.devicePixelRatio || 1;
    for (const canvas of this.canvases)
      [canvas.width, canvas.height] = [this.width, this.height].map((side) => Math.max(1, Math.round(side * this.ratio)));
    if (!this.size) return;
    if (this.fitted) this.fit();
    else this.move((this.width - before[0]) / 2, (this.height - before[1]) / 2);
  }

  fit() {
    if (!this.size) return;
    this.scale = this.fitScale;
    this.x = (this.width - this.size[0] * this.scale) / 2;
    this.y = (this.height - this.size[1] * this.scale) / 2;
    this.fitted = true;
    this.refresh('photo', 'mask');
  }

  // Zoom so that what is at (x, y) of the stage stays there, or goes to `to`.
  zoom(factor, x = this.width / 2, y = this.height / 2, to = [x, y]) {
    if (!this.size) return;
    const least = Math.min(1, this.fitScale) * LEAST;
    const scale = Math.min(MOST_ZOOM, Math.max(least, this.scale * factor));
    this.x = to[0] - ((x - this.x) * scale) / this.scale;
    this.y = to[1] - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.move(0, 0);
  }

  move(right, down) {
    if (!this.size) return;
    this.fitted = false;
    // Some of the photo always stays in sight, in the middle if all of it fits.
    this.x = bounded(this.x + right, this.width, this.size[0] * this.scale);
    this.y = bounded(this.y + down, this.height, this.size[1] * this.scale);
    this.refresh('photo', 'mask');
  }

  toPhoto(x, y) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  toStage([x, y]) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  // --- drawing -----------------------------------------------------------------------------------

  show(size, layers, before) {
    const other = !this.size || size.some((side, index) => side !== this.size[index]);
    if (!other && layers === this.layers && before === this.before) return;
    [this.size, this.layers, this.before] = [size, layers, before];
    if (other) this.fit();
    this.refresh('photo');
  }

  // Draw the photo or the mask when the screen is drawn next.
  refresh(...what) {
    if (!this.stale.size) requestAnimationFrame(() => this.draw());
    for (const name of what) this.stale.add(name);
  }

  draw() {
    const stale = new Set(this.stale);
    this.stale.clear();
    if (stale.has('photo')) this.drawPhoto();
    if (stale.has('mask')) this.drawMask();
    this.onDraw?.();
  }

  start(pen) {
    const scale = this.scale * this.ratio;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
    pen.setTransform(scale, 0, 0, scale, this.x * this.ratio, this.y * this.ratio);
    pen.beginPath();
  }

  drawPhoto() {
    const pen = this.photoPen;
    this.start(pen);
    if (!this.layers) return;
    const split = this.holdsBefore ? 1 : this.split;
    this.drawLayers(pen, this.layers);
    if (!split || !this.before) return;
    pen.save();
    const [left, top] = this.toPhoto(0, 0);
    pen.rect(left, top, (split * this.width) / this.scale, this.height / this.scale);
    pen.clip();
    this.drawLayers(pen, this.before);
    pen.restore();
  }

  drawLayers(pen, layers) {
    const [width, height] = this.size;
    const pixels = this.scale * this.ratio;
    const sharp = (pixels * width) / layers.small.width <= SHARP;
    if (!sharp && !layers.whole) this.wantWhole(layers);
    pen.imageSmoothingEnabled = pixels < 3;
    // Better scaling first makes smaller copies, which takes long for the whole photo.
    pen.imageSmoothingQuality = sharp ? 'medium' : 'low';
    this.drawPart(pen, sharp || !layers.whole ? layers.small : layers.whole, [0, 0, width, height]);
    for (const { bitmap, box } of layers.patches) {
      const [left, top, right, bottom] = box;
      this.drawPart(pen, bitmap, [left * width, top * height, right * width, bottom * height]);
    }
  }

  // The part in sight of a bitmap that covers `box`, in pixels of the mask.
  drawPart(pen, bitmap, [left, top, right, bottom]) {
    const [x, y] = this.toPhoto(0, 0);
    const from = [Math.max(left, x), Math.max(top, y)];
    const to = [Math.min(right, x + this.width / this.scale), Math.min(bottom, y + this.height / this.scale)];
    if (to[0] <= from[0] || to[1] <= from[1]) return;
    const [across, down] = [bitmap.width / (right - left), bitmap.height / (bottom - top)];
    // Whole pixels of the bitmap, or it would jump about while it is moved.
    const [x0, y0] = [Math.floor((from[0] - left) * across), Math.floor((from[1] - top) * down)];
    const [x1, y1] = [Math.ceil((to[0] - left) * across), Math.ceil((to[1] - top) * down)];
    pen.drawImage(bitmap, x0, y0, x1 - x0, y1 - y0, left + x0 / across, top + y0 / down, (x1 - x0) / across, (y1 - y0) / down);
  }

  drawMask() {
    this.start(this.maskPen);
    if (!this.size) return;
    this.clipToPhoto();
    drawItems(this.maskPen, this.items, this.masks, this.scale * this.ratio);
    if (this.stroke) drawStroke(this.maskPen, this.stroke);
    this.maskPen.restore();
  }

  clipToPhoto() {
    this.maskPen.save();
    this.maskPen.beginPath();
    this.maskPen.rect(0, 0, ...this.size);
    this.maskPen.clip();
  }

  // The stroke under the hand grows: only its new part is drawn.
  extend(stroke, from) {
    this.stroke = stroke;
    if (this.stale.has('mask')) return;
    this.clipToPhoto();
    drawStroke(this.maskPen, stroke, from);
    this.maskPen.restore();
  }
}

function bounded(place, room, length) {
  if (length <= room) return (room - length) / 2;
  const slack = Math.min(room, length) * 0.35;
  return Math.min(slack, Math.max(room - length - slack, place));
}
