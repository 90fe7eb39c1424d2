// The object that a rough stroke goes over, a loop goes around or a click means: the server finds it.

import { exportMask } from './mask.js';

const CLICK = 0.3; // of what is in sight: how wide a click's object may be

export class Selection {
  // `page` has `server`, `timeline`, `view`, `bitmaps`, `fills`, `auto`, `grow` and `say(place, text)`.
  constructor(page) {
    this.page = page;
    page.grow.addEventListener('change', () => this.again());
  }

  // Put what the stroke means in its place, or in that of `old`, which meant it before.
  async take(stroke, old = null) {
    const { timeline, view, server, say } = this.page;
    const picture = timeline.picture;
    const turn = (this.turn = {});
    if (!old) view.stroke = stroke; // seen until there is more to see
    this.page.element.classList.add('rn-opening');
    say('fill', '');
    try {
      const part = await exportMask([this.meant(stroke, picture.canvas)], picture.canvas, view.masks);
      if (!part) return; // beside the photo
      const box = around(stroke, picture.canvas);
      const grown = Number(this.page.grow.value);
      const pixels = Math.round((grown * Math.max(picture.width, picture.height)) / 1000);
      const query = `left=${part.left}&top=${part.top}&grow=${pixels}${box ? `&box=${box}` : ''}`;
      const told = await server.ask('POST', `pictures/${picture.number}/selections?${query}`, part.blob);
      await this.page.bitmaps.loadMask(told.mask, picture);
      const now = timeline.picture;
      if (now !== picture) {
        if (old) return;
        // A fill that came meanwhile leaves the other pixels as they were.
        if (now.origin !== picture.origin || String(now.canvas) !== String(picture.canvas))
          throw new Error('The photo has changed meanwhile. Select it again.');
      }
      if (old) {
        // Who has gone on meanwhile has seen enough of it.
        if (this.turn !== turn || timeline.steps[timeline.at - 1] !== old) return;
        timeline.undo();
      }
      const step = { kind: 'mask', number: told.mask, from: stroke, grown };
      timeline.add(step);
      if (this.page.auto.checked && !old) this.page.fills.painted(step);
    } catch (error) {
      say('fill', error.message);
    } finally {
      if (view.stroke === stroke) view.stroke = null;
      view.refresh('mask');
      if (this.turn === turn) this.page.element.classList.remove('rn-opening');
    }
  }

  // A click says nothing of how large the object is: what is in sight does.
  meant({ points, width, ...rest }, size) {
    const [first] = points;
    const moved = Math.max(...points.map(([x, y]) => Math.hypot(x - first[0], y - first[1])));
    const { view } = this.page;
    const seen = Math.max(Math.min(size[0], view.width / view.scale), Math.min(size[1], view.height / view.scale));
    return { ...rest, points, width: moved < width / 2 ? Math.max(width, CLICK * seen) : width };
  }

  // The last selection grows or shrinks as the slider was moved.
  again() {
    const { timeline } = this.page;
    const last = timeline.items.at(-1);
    if (last?.from) this.take(last.from, last);
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
