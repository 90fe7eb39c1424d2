// Where the person looks, and what is drawn there. Only pixels in sight are ever drawn, so that a
// stroke, an undo and a zoom take as long on a photo of 12 megapixels as on a small one.

import { drawItems, drawStroke } from './mask.js';

const MOST_ZOOM = 16; // screen pixels for a pixel of the photo
const LEAST = 0.7; // of the scale at which the photo fits
const MARGIN = 12; // screen pixels around a photo that fits
const ROOM = 0.3; // of the stage, left free while the border is drawn outward
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
    this.frame = [0, 0, 1, 1]; // where `before` lies in the picture, as shares
    this.margins = [0, 0, 0, 0]; // around the picture, in pixels of the mask
    this.roomy = false; // whether the border is to be drawn outward
    this.hard = false; // whether soft edges are shown as hard ones
    this.items = [];
    this.pending = []; // strokes whose meaning is being found
    this.masks = new Map();
    this.split = 0; // share of the stage's width, from the left, that shows `before`
    this.holdsBefore = false;
    [this.scale, this.x, this.y, this.fitted] = [1, 0, 0, true];
    this.stale = new Set();
    new ResizeObserver(() => this.resize()).observe(stage);
    this.resize();
  }

  // --- geometry ----------------------------------------------------------------------------------

  // The picture and what is to be added around it.
  get wide() {
    const [left, top, right, bottom] = this.margins;
    return [this.size[0] + left + right, this.size[1] + top + bottom];
  }

  get fitScale() {
    const [width, height] = this.wide;
    const room = 1 - (this.roomy ? ROOM : 0);
    return Math.min((this.width * room - 2 * MARGIN) / width, (this.height * room - 2 * MARGIN) / height, 4);
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
    const [width, height] = this.wide;
    this.x = (this.width - width * this.scale) / 2 + this.margins[0] * this.scale;
    this.y = (this.height - height * this.scale) / 2 + this.margins[1] * this.scale;
    this.fitted = true;
    this.refresh('photo', 'mask');
  }

  // What is to be added around the picture; it stays where it is while a hand draws at its border.
  setMargins(margins, roomy, held) {
    if (!held && (roomy !== this.roomy || String(margins) !== String(this.margins) || this.held)) {
      [this.margins, this.roomy, this.held] = [margins, roomy, false];
      if (this.fitted) this.fit();
    } else [this.margins, this.held] = [margins, held];
    this.refresh('photo');
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
    const [before, above] = this.margins.map((margin) => margin * this.scale);
    const [width, height] = this.wide.map((side) => side * this.scale);
    this.x = bounded(this.x + right - before, this.width, width) + before;
    this.y = bounded(this.y + down - above, this.height, height) + above;
    this.refresh('photo', 'mask');
  }

  toPhoto(x, y) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  toStage([x, y]) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  // --- drawing -----------------------------------------------------------------------------------

  show(size, layers, before, frame = [0, 0, 1, 1]) {
    const other = !this.size || size.some((side, index) => side !== this.size[index]);
    if (!other && layers === this.layers && before === this.before) return;
    [this.size, this.layers, this.before, this.frame] = [size, layers, before, frame];
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
    pen.clearRect(0, 0, ...this.size);
    this.drawLayers(pen, this.before, this.frame);
    pen.restore();
  }

  // `frame`: where in the picture they lie.
  drawLayers(pen, layers, frame = [0, 0, 1, 1]) {
    const [width, height] = this.size;
    const pixels = this.scale * this.ratio;
    const sharp = (pixels * width * (frame[2] - frame[0])) / layers.small.width <= SHARP;
    if (!sharp && !layers.whole) this.wantWhole(layers);
    pen.imageSmoothingEnabled = pixels < 3;
    // Better scaling first makes smaller copies, which takes long for the whole photo.
    pen.imageSmoothingQuality = sharp ? 'medium' : 'low';
    const box = [frame[0] * width, frame[1] * height, frame[2] * width, frame[3] * height];
    this.drawPart(pen, sharp || !layers.whole ? layers.small : layers.whole, box);
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
    if (!this.stroke || !this.drawBelow())
      drawItems(this.maskPen, this.items, this.masks, this.scale * this.ratio, this.hard);
    for (const stroke of this.pending) drawStroke(this.maskPen, stroke, 0, this.hard);
    if (this.stroke) drawStroke(this.maskPen, this.stroke, 0, this.hard);
    this.maskPen.restore();
  }

  // A copy of what is painted, for as long as the view stays as it is.
  keepBelow() {
    this.stroke = null;
    this.drawMask();
    const { canvas } = this.maskPen;
    const copy = document.createElement('canvas');
    [copy.width, copy.height] = [canvas.width, canvas.height];
    copy.getContext('2d').drawImage(canvas, 0, 0);
    this.below = { copy, items: this.items, view: this.viewKey };
  }

  get viewKey() {
    return [this.x, this.y, this.scale, this.ratio, this.width, this.height].join();
  }

  drawBelow() {
    if (!this.below || this.below.items !== this.items || this.below.view !== this.viewKey) return false;
    const pen = this.maskPen;
    const transform = pen.getTransform();
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.globalCompositeOperation = 'source-over';
    pen.drawImage(this.below.copy, 0, 0);
    pen.setTransform(transform);
    return true;
  }

  clipToPhoto() {
    this.maskPen.save();
    this.maskPen.beginPath();
    this.maskPen.rect(0, 0, ...this.size);
    this.maskPen.clip();
  }

  // The stroke under the hand grows: only its new part is drawn.
  extend(stroke, from) {
    if (stroke.soft && !this.hard) {
      // Its parts would add up where they meet: all of it is drawn anew, over a copy of the others.
      if (!from) this.keepBelow();
      this.stroke = stroke;
      return this.refresh('mask');
    }
    this.stroke = stroke;
    if (this.stale.has('mask')) return;
    this.clipToPhoto();
    drawStroke(this.maskPen, stroke, from, this.hard);
    this.maskPen.restore();
  }
}

function bounded(place, room, length) {
  if (length <= room) return (room - length) / 2;
  const slack = Math.min(room, length) * 0.35;
  return Math.min(slack, Math.max(room - length - slack, place));
}
