// The page: what its buttons and keys do, and what it shows. Other files know nothing of this one.

import { Batch, save } from './batch.js';
import { Bitmaps } from './bitmaps.js';
import { Controls } from './controls.js';
import { Fills } from './fills.js';
import { Finding } from './finding.js';
import { Frame } from './frame.js';
import { Hand } from './hand.js';
import { shareOf, wholeMask } from './mask.js';
import { keptBy, Memory } from './memory.js';
import { Selection } from './select.js';
import { Server } from './server.js';
import { Timeline } from './timeline.js';
import { View } from './view.js';

const KNOB = 74; // pixels, as in page.css

export async function start(root, base) {
  const page = new Page(root.querySelector('.rn-app'), base);
  window.regionnorm = page; // for tests, and for who looks with the browser's tools
  await page.memory.restore();
}

class Page {
  constructor(element, base) {
    this.element = element;
    this.modules = new URL('.', import.meta.url).href;
    this.find = (selector) => element.querySelector(selector);
    this.stage = this.find('.rn-stage');
    this.brush = this.find('.rn-brush input');
    this.auto = this.find('.rn-auto input');
    this.compare = this.find('.rn-compare input');
    this.grow = this.find('.rn-grow input');
    this.softness = this.find('.rn-softness input');
    this.hard = this.find('.rn-hard input');
    this.keys = this.find('.rn-keys input');
    this.server = new Server(base);
    this.pictures = []; // what the server keeps, latest first
    this.bitmaps = new Bitmaps(this);
    this.say = this.say.bind(this);
    this.timeline = new Timeline(() => this.changed());
    this.view = new View(this.stage, (layers) => this.bitmaps.sharpen(layers));
    this.view.onDraw = () => this.drawn();
    this.fills = new Fills(element, this);
    this.finding = new Finding(this);
    this.selection = new Selection(this);
    this.frame = new Frame(this);
    const page = this;
    this.hand = new Hand(this.stage, this.view, {
      // What is seen is what is painted on.
      ready: () => Boolean(this.shown) && this.timeline.takes(this.shown),
      width: () => Number(this.brush.value),
      softness: () => Number(this.softness.value) / 100,
      painted: (stroke) => this.painted(stroke),
      selected: (stroke) => this.selection.take(stroke),
      touched: () => this.setSplit(0),
      tell: (words) => (this.find('.rn-size').textContent = words),
      get tool() {
        return page.tool;
      },
    });
    this.batch = new Batch(this.find('.rn-batch'), this.server, this.say);
    this.memory = new Memory(this);
    this.memory.choices();
    this.controls = new Controls(this);
    this.showExamples();
  }

  get tool() {
    return this.find('[data-tool][aria-pressed=true]').dataset.tool;
  }

  // --- photos in ---------------------------------------------------------------------------------

  async open(file) {
    if (!file) return;
    await this.opening(`photos?name=${encodeURIComponent(file.name || 'photo.png')}`, file, file.name);
  }

  async opening(path, body, name) {
    this.say('photo', '');
    this.element.classList.add('rn-opening');
    const turn = (this.turn = {});
    try {
      const picture = await this.server.ask('POST', path, body);
      this.pictures.unshift(picture);
      await this.bitmaps.load(picture.number);
      // Who chose another one meanwhile wants that one.
      if (this.turn === turn) this.enter(picture);
    } catch (error) {
      if (this.turn === turn) this.say('photo', error.message);
    } finally {
      if (this.turn === turn) this.element.classList.remove('rn-opening');
    }
    await this.update();
  }

  // --- masks -------------------------------------------------------------------------------------

  loadMask(query, file) {
    return this.addMask(query, file, 'Loading the mask', { again: 'Load the mask again.' });
  }

  findMask(rule, what) {
    return this.addMask(`rule=${rule}`, undefined, `Looking for ${what}`, { again: 'Find again.', kind: 'find' });
  }

  addMask(query, file, words, { again, kind }) {
    this.say('photo', '');
    const { picture } = this.timeline;
    if (!picture) return this.say('photo', 'There is no photo yet. Choose one first.');
    const work = async (signal) => {
      try {
        const told = await this.server.ask('POST', `pictures/${picture.number}/masks?${query}`, file, signal);
        const step = { kind: 'mask', number: told.mask, soft: told.soft };
        await this.bitmaps.loadMask(step, picture);
        signal.throwIfAborted();
        if (!this.timeline.takes(picture)) throw new Error(`The photo has changed meanwhile. ${again}`);
        this.timeline.add(step);
        if (told.warnings.length) this.say('photo', `The mask is loaded. Note: ${told.warnings.join('. ')}.`);
        return true;
      } catch (error) {
        if (error.name !== 'AbortError') this.say('photo', error.message);
        return false;
      }
    };
    return this.finding.add(words, work, kind);
  }

  async saveMask() {
    const { picture, items } = this.timeline;
    if (!picture) return this.say('photo', 'There is no photo yet. Choose one first.');
    try {
      const address = URL.createObjectURL(await wholeMask(items, picture, this.view.masks, this.hard.checked));
      save(address, `${picture.name.replace(/\.[^.]*$/, '')}-mask.png`);
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      this.say('photo', `The mask cannot be saved: ${error.message}`);
    }
    return undefined;
  }

  // --- painted, filled ---------------------------------------------------------------------------

  painted(stroke) {
    this.timeline.add(stroke);
    this.say('fill', '');
    if (this.auto.checked) this.fills.painted(stroke);
  }

  async arrived(picture, running) {
    this.pictures.unshift(picture);
    try {
      await this.bitmaps.load(picture.number);
    } catch {
      // It can still be fetched when it is wanted.
    }
    // Whoever has gone on to another photo stays there; the fill is among the thumbnails.
    const { fills, timeline } = this;
    if (fills.running === running) {
      // A stroke under the hand has its places on the picture before, and moves with the others.
      if (!timeline.takes(picture)) this.hand.lift();
      if (timeline.insert(running.mark, picture)) fills.landed(running, picture);
    }
    await this.update();
  }

  finished(done, running) {
    const more = this.timeline.items.some((item) => (item.kind === 'stroke' && !item.erase) || item.from);
    if (done && (running.auto || running.next) && this.auto.checked && more) this.fills.fill(true, running.saves);
    else if (done && running.saves) this.download();
  }

  // What is being found is filled, too.
  async fill() {
    if (await this.finding.all()) this.fills.fill();
  }

  undo() {
    if (this.finding.cancel(1)) return; // what was asked for last
    const running = this.fills.running;
    if (running && running.mark === this.timeline.steps[this.timeline.at - 1]) this.fills.cancel();
    else this.timeline.undo();
  }

  async goTo(number) {
    const picture = this.pictures.find((one) => one.number === number);
    if (!picture || picture.number === this.timeline.picture?.number) return;
    const turn = (this.turn = {});
    try {
      await this.bitmaps.load(number);
      if (this.turn === turn) this.enter(picture);
    } catch (error) {
      this.say('photo', error.message);
      await this.update();
    }
  }

  // Go on with a picture that was opened, or chosen among those that are there.
  enter(picture) {
    this.timeline.add({ kind: 'picture', picture });
    this.fills.leave();
  }

  clear() {
    const { fills, timeline } = this;
    if (!timeline.items.length) return;
    if (timeline.items.includes(fills.running?.mark)) fills.cancel();
    timeline.add({ kind: 'clear' });
  }

  download() {
    const picture = this.timeline.picture;
    if (!picture) return;
    this.fills.leave();
    const { running } = this.fills;
    if (running) {
      // What is on its way belongs to it.
      running.saves = true;
      this.changed();
      return;
    }
    this.save(picture);
  }

  save({ number, name }) {
    save(this.server.address(`pictures/${number}/file`), name);
  }

  // The server lets no picture go that it knows the page to be on.
  stay({ number }) {
    if (number === this.stays) return;
    this.stays = number;
    this.server.ask('POST', `pictures/${number}/stay`).catch(() => (this.stays = null));
  }

  // What the server keeps: it lets the oldest go.
  async update() {
    try {
      this.pictures = (await this.server.ask('GET', '')).pictures;
    } catch {
      return;
    }
    this.timeline.keep(keptBy(this.pictures));
    this.showHistory();
    this.changed();
  }

  // --- what is shown -----------------------------------------------------------------------------

  changed() {
    const { timeline, view, fills } = this;
    const picture = timeline.picture;
    // What is under the hand belongs to the picture that it was begun on.
    if (this.current && !timeline.takes(this.current)) {
      this.hand.drop();
      this.frame.drop();
    }
    this.current = picture;
    const enable = (name, on) => (this.find(`[data-do=${name}]`).disabled = !on);
    enable('undo', timeline.canUndo || fills.running || this.finding.line.length);
    enable('redo', timeline.canRedo);
    enable('clear', timeline.items.length);
    enable('fill', !fills.running);
    enable('another', !fills.running);
    enable('download', picture);
    for (const name of ['in', 'out', 'fit', 'save', 'load', 'inverted']) enable(name, picture);
    for (const name of ['scratches', 'text']) enable(name, picture && !this.finding.has('find'));
    const { filled } = timeline;
    for (const selector of ['[data-do=another]', '[data-do=compare]', '.rn-compare']) this.find(selector).hidden = !filled;
    this.find('.rn-download').classList.toggle('rn-strong', filled);
    this.find('[data-do=fill]').classList.toggle('rn-strong', !filled || timeline.items.length > 0);
    this.find('.rn-download').textContent = fills.running?.saves ? 'Saving…' : 'Download';
    this.element.classList.toggle('rn-open', Boolean(picture));
    // Screen readers leave its keys to the photo.
    this.stage.setAttribute('role', picture ? 'application' : 'main');
    for (const button of this.element.querySelectorAll('.rn-history button'))
      button.setAttribute('aria-current', button.dataset.number === picture?.number);
    view.hard = this.hard.checked;
    view.items = timeline.items;
    this.frame.show();
    view.refresh('mask');
    if (picture) {
      this.showPicture(picture);
      this.stay(picture);
    } else view.show(view.size ?? [1, 1], null, null);
    this.showSize();
    this.memory.keep();
  }

  async showPicture(picture) {
    const turn = (this.showing = {});
    try {
      const masks = this.timeline.items.filter((item) => item.kind === 'mask');
      const layers = await this.bitmaps.load(picture.number, picture);
      // Where that is gone the fill is shown without it.
      const before = picture.parent ? await this.bitmaps.load(picture.origin).catch(() => null) : null;
      if (this.showing !== turn) return;
      const { width, height, frame } = picture;
      this.shown = picture;
      this.view.show(picture.canvas, layers, before, frame.map((edge, side) => edge / (side % 2 ? height : width)));
      this.frame.show();
      for (const mask of masks) await this.bitmaps.loadMask(mask, picture);
      if (this.showing !== turn) return;
      this.view.refresh('mask');
      this.showSize(); // masks may have come only now
    } catch (error) {
      if (this.showing === turn) this.say('photo', error.message);
    }
  }

  // Counting what is painted waits until the hand rests.
  showSize() {
    clearTimeout(this.counting);
    const { picture } = this.timeline;
    const size = this.find('.rn-size');
    if (!picture) size.textContent = '';
    else
      this.counting = setTimeout(() => {
        const { timeline } = this;
        const { items } = timeline;
        const share = items.length ? shareOf(items, picture.canvas, this.view.masks) : 0;
        const parts = [`${picture.width} × ${picture.height}`];
        if (timeline.margins.some(Boolean)) parts.push(`→ ${wider(picture, timeline.margins)}`);
        if (share) parts.push(`· ${(100 * share).toFixed(share < 0.1 ? 1 : 0)} % painted`);
        // On a phone it takes several lines, each a part.
        size.textContent = parts.map((part) => part.replaceAll(' ', '\u00a0')).join(' ');
      }, 120);
  }

  showHistory() {
    const list = this.find('.rn-history');
    list.hidden = !this.pictures.length;
    const numbers = this.pictures.map(({ number }) => number);
    // Those that are there stay in their places, and one of them perhaps the keyboard's.
    for (const button of [...list.children].filter(({ dataset }) => !numbers.includes(dataset.number))) {
      if (button === document.activeElement) button.previousElementSibling?.focus();
      button.remove();
    }
    this.pictures.forEach((picture, index) => {
      const there = list.children[index];
      if (there?.dataset.number !== picture.number) list.insertBefore(this.thumbnail(picture), there ?? null);
    });
  }

  thumbnail(picture) {
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.number = picture.number;
    button.title = `Go back to ${picture.name}`;
    const small = document.createElement('img');
    [small.src, small.alt] = [this.server.address(`pictures/${picture.number}/small`), ''];
    const name = document.createElement('span');
    name.textContent = picture.name;
    button.append(small, name);
    return button;
  }

  showExamples() {
    const names = JSON.parse(this.element.dataset.examples);
    this.find('.rn-examples').replaceChildren(
      ...names.map((name, index) => {
        const button = document.createElement('button');
        button.type = 'button';
        button.dataset.example = index;
        const small = document.createElement('img');
        [small.src, small.alt] = [this.server.address(`examples/${index}`), `Try it on: ${name}`];
        button.append(small);
        return button;
      }),
    );
  }

  drawn() {
    const { view } = this;
    this.frame.place();
    if (!view.size) return;
    this.find('.rn-zoom').textContent = view.fitted ? 'Fit' : `${Math.round(100 * view.scale)} %`;
    const line = this.find('.rn-line');
    line.hidden = !view.split || !view.before;
    line.style.left = `${100 * view.split}%`;
  }

  // Where the middle of the slider's knob is, as a share of the stage's width.
  splitOf(value) {
    const half = Math.min(0.5, KNOB / 2 / this.view.width);
    return value ? half + value * (1 - 2 * half) : 0;
  }

  setSplit(share) {
    if (this.view.split === share) return;
    this.view.split = share;
    if (!share) this.compare.value = 0;
    this.view.refresh('photo');
  }

  holdBefore(on) {
    if (this.view.holdsBefore === on) return;
    this.view.holdsBefore = on;
    this.find('[data-do=compare]').setAttribute('aria-pressed', on);
    this.find('.rn-mask').style.visibility = on ? 'hidden' : '';
    this.view.refresh('photo');
  }

  // A line near what it is about, until that is mended or it is closed; '' takes it away.
  say(place, text) {
    const box = this.find(`.rn-said[data-place=${place}]`);
    box.hidden = !text;
    box.replaceChildren();
    if (!text) return;
    const words = document.createElement('span');
    words.textContent = text;
    const close = document.createElement('button');
    close.type = 'button';
    close.textContent = '×';
    close.setAttribute('aria-label', 'Close this message');
    close.addEventListener('click', () => this.say(place, ''));
    box.append(words, close);
  }

  async showRegions() {
    const dialog = this.find('.rn-regions');
    const [note, grid] = [dialog.querySelector('.rn-note'), dialog.querySelector('.rn-grid')];
    grid.replaceChildren();
    dialog.showModal();
    const picture = this.timeline.picture;
    if (!this.timeline.filled) {
      note.textContent = 'Fill something first; then the regions of that photo are shown here.';
      return;
    }
    note.textContent = 'Looking…';
    try {
      const last = await this.server.follow('POST', `pictures/${picture.number}/regions`, undefined, () => {});
      note.textContent = last.summary ?? last.error;
      for (const { src, caption } of last.regions ?? []) {
        const figure = document.createElement('figure');
        const [image, words] = [document.createElement('img'), document.createElement('figcaption')];
        [image.src, image.alt, words.textContent] = [src, `Region of layer ${caption}`, caption];
        figure.append(image, words);
        grid.append(figure);
      }
    } catch (error) {
      note.textContent = error.message;
    }
  }
}

function wider({ width, height }, [left, top, right, bottom]) {
  return `${width + left + right} × ${height + top + bottom}`;
}
