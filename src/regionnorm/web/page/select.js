// The object that a rough stroke goes over, a loop goes around or a click means: the server finds it.

import { exportMask } from './mask.js';

const CLICK = 0.3; // of what is in sight: how wide a click's object may be

export class Selection {
  // `page` has `server`, `timeline`, `view`, `bitmaps`, `fills`, `finding`, `auto`, `grow` and
  // `say(place, text)`.
  constructor(page) {
    this.page = page;
    this.refills = false; // whether a fill was stopped for what is to be found
    page.grow.addEventListener('change', () => this.again());
  }

  // Put what the stroke means in its place.
  async take(stroke) {
    const { timeline, view, say, finding } = this.page;
    const { picture } = timeline;
    view.pending = [...view.pending, stroke]; // seen until there is more to see
    view.refresh('mask');
    say('fill', '');
    const found = await finding.add('Selecting', (signal) => this.find(stroke, picture, null, signal));
    view.pending = view.pending.filter((one) => one !== stroke);
    view.refresh('mask');
    if (found) this.again(); // the slider may have been moved meanwhile
  }

  // The last selection grows or shrinks as the slider was moved; where it is filled at once, it is
  // filled anew.
  again() {
    const { timeline, view, fills, auto, finding } = this.page;
    const { last } = timeline;
    if (!last?.from || last.grown === Number(this.page.grow.value) || view.pending.length) return;
    const filled = last !== timeline.steps[timeline.at - 1];
    if (filled && !auto.checked) return; // the slider is set for the next one
    const runs = fills.running?.mark === last;
    if (runs) fills.cancel();
    this.refills ||= runs || filled;
    const picture = timeline.paintedOn(last);
    finding.add('Selecting', (signal) => this.find(last.from, picture, last, signal), 'again').then((found) => this.refill(found));
  }

  refill(found) {
    const { timeline, fills, finding } = this.page;
    if (found) this.again();
    if (!this.refills || finding.has('again')) return;
    this.refills = false;
    if (timeline.items.at(-1)?.from) fills.fill(true);
  }

  // Find what a stroke on a picture means, in the place of `old`, which meant it before.
  async find(stroke, picture, old, signal) {
    const { timeline, say, fills, auto } = this.page;
    try {
      const step = await this.ask(stroke, picture, signal);
      if (!step) return false;
      if (!old && !timeline.takes(picture)) throw new Error('The photo has changed meanwhile. Select it again.');
      if (!old) timeline.add(step);
      else if (!timeline.replace(old, step)) this.refills = false; // who has gone on has seen enough of it
      if (auto.checked && !old) fills.painted(step);
      return true;
    } catch (error) {
      if (error.name !== 'AbortError') say('fill', error.message);
      return false;
    }
  }

  async ask(stroke, picture, signal) {
    const { view, server, bitmaps } = this.page;
    const part = await exportMask([this.meant(stroke, picture.canvas)], picture.canvas, view.masks);
    if (!part) return null; // beside the photo
    const box = around(stroke, picture.canvas);
    const grown = Number(this.page.grow.value);
    const pixels = Math.round((grown * Math.max(picture.width, picture.height)) / 1000);
    const query = `left=${part.left}&top=${part.top}&grow=${pixels}${box ? `&box=${box}` : ''}`;
    const told = await server.ask('POST', `pictures/${picture.number}/selections?${query}`, part.blob, signal);
    const step = { kind: 'mask', number: told.mask, from: stroke, grown };
    await bitmaps.loadMask(step, picture);
    signal.throwIfAborted();
    return step;
  }

  // A click says nothing of how large the object is: what is in sight does.
  meant({ points, width, ...rest }, size) {
    const [first] = points;
    const moved = Math.max(...points.map(([x, y]) => Math.hypot(x - first[0], y - first[1])));
    const { view } = this.page;
    const seen = Math.max(Math.min(size[0], view.width / view.scale), Math.min(size[1], view.height / view.scale));
    return { ...rest, points, width: moved < width / 2 ? Math.max(width, CLICK * seen) : width };
  }
}

// A stroke that comes back to where it began means what is inside: its box, in pixels of the mask.
function around({ points, width }, size) {
  const [first, last] = [points[0], points.at(-1)];
  const sides = [0, 1].map((axis) => {
    const values = points.map((point) => point[axis]);
    return [Math.max(0, Math.min(...values)), Math.min(size[axis], Math.max(...values))].map(Math.round);
  });
  const [across, down] = sides.map(([low, high]) => high - low);
  const gap = Math.hypot(first[0] - last[0], first[1] - last[1]);
  let area = 0; // of the polygon
  points.forEach(([x, y], index) => {
    const [u, v] = points[(index + 1) % points.length];
    area += (x * v - u * y) / 2;
  });
  const loop = gap < Math.max(width, 0.3 * Math.min(across, down)) && Math.min(across, down) > 2 * width;
  if (!loop || Math.abs(area) < 0.4 * across * down) return null;
  return [sides[0][0], sides[1][0], sides[0][1], sides[1][1]].join(',');
}
