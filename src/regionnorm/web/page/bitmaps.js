// Photos, fills and loaded masks as bitmaps: fetched once, and kept while undo may lead to them.

const KEPT = 12; // pictures
const KEPT_MASKS = 6; // and those that are painted now

export class Bitmaps {
  // `page` has `server`, `view`, `timeline` and `pictures`.
  constructor(page) {
    this.page = page;
    this.layers = new Map();
  }

  // Bitmaps of a picture: of a fill those of what was filled, and a patch.
  async load(number, picture = this.page.pictures.find((one) => one.number === number)) {
    const known = this.layers.get(number);
    if (known) {
      this.layers.delete(number); // to the end: it was used last
      this.layers.set(number, known);
      return known;
    }
    const below = picture?.box && this.layers.get(picture.parent);
    let layers;
    if (below) {
      const bitmap = await this.page.server.bitmap(`pictures/${number}/patch`);
      const { width, height, box } = picture;
      const shares = [box[0] / width, box[1] / height, box[2] / width, box[3] / height];
      layers = { number, below, patches: [...below.patches, { bitmap, box: shares }] };
      // The whole photo may come later, for all that are drawn over it.
      for (const name of ['small', 'whole'])
        Object.defineProperty(layers, name, { get: () => below[name], set: (value) => (below[name] = value) });
    } else {
      layers = { number, picture, small: await this.page.server.bitmap(`pictures/${number}/view`), whole: null, patches: [] };
    }
    this.layers.set(number, layers);
    const used = [this.page.timeline.picture?.number, this.page.timeline.picture?.origin, number];
    for (const old of this.layers.keys()) {
      if (this.layers.size <= KEPT) break;
      if (!used.includes(old)) this.layers.delete(old);
    }
    return layers;
  }

  // The person has zoomed in beyond what the small copy shows.
  async sharpen(layers) {
    const bottom = layers.below ? this.bottom(layers) : layers;
    if (bottom.asked) return;
    bottom.asked = true;
    try {
      const { picture } = bottom;
      if (!picture || Math.max(picture.width, picture.height) <= Math.max(bottom.small.width, bottom.small.height)) return;
      const [resizeWidth, resizeHeight] = picture.canvas;
      bottom.whole = await this.page.server.bitmap(`pictures/${bottom.number}/whole`, { resizeWidth, resizeHeight });
      this.page.view.refresh('photo');
    } catch {
      bottom.asked = false; // the small one is there
    }
  }

  bottom(layers) {
    return layers.below ? this.bottom(layers.below) : layers;
  }

  // `box`: where it lies, if the picture has grown since.
  async loadMask({ number, soft, box }, picture) {
    if (this.page.view.masks.has(number)) return;
    const size = box?.slice(2).map(Math.round) ?? picture.canvas;
    const [resizeWidth, resizeHeight] = size;
    const whole = await this.page.server.bitmap(`masks/${number}`, { resizeWidth, resizeHeight, resizeQuality: 'pixelated' });
    const share = Math.min(1, 1600 / Math.max(...size));
    const small = await createImageBitmap(whole, { resizeWidth: Math.ceil(size[0] * share), resizeHeight: Math.ceil(size[1] * share) });
    const { masks } = this.page.view;
    masks.set(number, { small, whole, size, soft });
    // Each is as large as the photo; undo fetches it once more.
    const used = this.page.timeline.items.map((item) => item.number);
    for (const old of masks.keys()) {
      if (masks.size <= KEPT_MASKS) break;
      if (old !== number && !used.includes(old)) masks.delete(old);
    }
  }
}
