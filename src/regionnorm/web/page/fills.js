// Fills on their way: one at a time, seen, cancelled, and put where they belong when they come.

import { boundsOf, exportMask } from './mask.js';

const ALOUD = 5000; // milliseconds

export class Fills {
  // `page` has `server`, `timeline`, `view`, `say(place, text)`, `arrived(picture, running)`, `changed()`,
  // `finished(done, running)` and `save(picture)`.
  constructor(element, page) {
    this.page = page;
    this.box = element.querySelector('.rn-progress');
    this.track = this.box.querySelector('.rn-track');
    this.doing = this.box.querySelector('.rn-doing');
    this.aloud = this.box.querySelector('[role=status]');
    this.said = {}; // the state that was said last, and when
    this.running = null; // {picture, mark, auto, near, stop, job, next, saves}
  }

  // Fill what is painted. `auto`: because the hand let go. `saves`: download it then.
  async fill(auto = false, saves = false) {
    const { timeline, view, say } = this.page;
    const picture = timeline.picture;
    if (!picture) return say('photo', 'There is no photo yet. Choose one first.');
    this.leave();
    if (this.running) return undefined;
    const { items, margins } = timeline;
    const grows = margins.some(Boolean);
    if (grows && auto) return undefined; // more of the border may follow
    const mark = timeline.steps[timeline.at - 1];
    const running = this.begin({ mark, auto, saves, near: boundsOf(items.map(meant), picture.canvas) });
    const mask = await exportMask(items, picture.canvas, view.masks, view.hard);
    if (this.running !== running) return undefined;
    if (!mask && !grows) {
      this.end(running);
      const expand = 'Nothing is added yet. Drag a border of the photo outward.';
      if (!auto) say('fill', this.page.tool === 'expand' ? expand : 'Nothing is painted yet. Paint over what should go.');
      return undefined;
    }
    const query = [mask && `left=${mask.left}&top=${mask.top}`, grows && `grow=${margins}`].filter(Boolean);
    const path = `pictures/${picture.number}/fills?${query.join('&')}`;
    return this.work(running, 'POST', path, mask?.blob);
  }

  // Fill the same once more in another way.
  another() {
    const { timeline } = this.page;
    this.leave();
    if (this.running || !timeline.picture) return undefined;
    const mark = timeline.steps[timeline.start - 1];
    return this.work(this.begin({ mark, auto: false, near: null }), 'POST', `pictures/${timeline.picture.number}/variants`);
  }

  // Go on waiting for what was running before a reload.
  resume(job, mark, saves) {
    return this.work(this.begin({ mark, auto: false, near: null, job, saves }), 'GET', `jobs/${job}`);
  }

  begin(running) {
    this.running = { picture: this.page.timeline.picture, ...running, stop: new AbortController() };
    this.page.say('fill', '');
    this.tell({ state: 'starting' });
    this.page.changed();
    return this.running;
  }

  // It is painted on now; what was painted meanwhile is filled next.
  landed(running, picture) {
    Object.assign(running, { picture, near: null });
  }

  // A fill of another picture, which the person has left, goes on behind the scenes.
  leave() {
    if (this.running && this.running.picture !== this.page.timeline.picture) this.end(this.running);
  }

  async work(running, method, path, body) {
    let last;
    try {
      const told = (line) => {
        if (running.job !== line.job) {
          running.job = line.job;
          if (running.cancelled) this.forget(running);
          this.page.changed();
        }
        if (this.running === running) this.tell(line);
      };
      last = await this.page.server.follow(method, path, body, told, running.stop.signal);
    } catch (error) {
      last = { state: error.name === 'AbortError' ? 'cancelled' : 'failed', error: error.message };
    }
    if (last.picture) await this.page.arrived(last.picture, running);
    this.leave();
    const left = this.running !== running;
    this.end(running);
    // Who waits for a file gets it, or hears why not, wherever they are by now.
    if (running.cancelled || (left && !running.saves)) return last;
    if (last.state === 'failed') this.page.say('fill', last.error);
    else if (last.state === 'cancelled') this.page.say('fill', 'The fill was stopped.');
    if (!left) this.page.finished(last.state === 'done', running);
    else if (last.picture) this.page.save(last.picture);
    return last;
  }

  end(running) {
    if (this.running !== running) return;
    this.running = null;
    this.box.hidden = true;
    this.page.changed();
  }

  // Stop what runs; nothing of it will be shown.
  cancel() {
    const running = this.running;
    if (!running) return;
    running.cancelled = true;
    running.stop.abort();
    this.forget(running);
    this.end(running);
  }

  forget({ job }) {
    if (job) this.page.server.ask('DELETE', `jobs/${job}`).catch(() => {});
  }

  // The hand let go while a fill ran. More of the same object, or less, begins one anew that the
  // hand had started; anything else waits for its turn.
  painted(stroke) {
    this.leave();
    const running = this.running;
    if (!running) return stroke.erase ? undefined : this.fill(true);
    const hand = meant(stroke);
    const bounds = boundsOf([{ ...hand, erase: false }], this.page.timeline.picture.canvas);
    if (!running.auto || !running.near || !bounds || !meet(running.near, bounds, hand.width)) {
      running.next ||= !stroke.erase;
      return undefined;
    }
    this.cancel();
    return this.fill(true, running.saves);
  }

  tell({ state, ahead = 0, done = 0, left = 0 }) {
    this.box.hidden = false;
    const percent = Math.round(100 * done);
    this.track.setAttribute('aria-valuenow', percent);
    this.track.setAttribute('aria-label', 'Filling');
    this.track.classList.toggle('rn-busy', state !== 'running');
    this.track.firstElementChild.style.width = `${percent}%`;
    const time = left >= 90 ? `${Math.round(left / 60)} min` : `${Math.max(1, Math.round(left))} s`;
    const words = {
      starting: 'Filling…',
      waiting: `${ahead ? `${ahead} before you` : 'You are next'} · about ${time}`,
      running: `Filling · about ${time} left`,
    }[state];
    if (this.doing.textContent !== words) this.doing.textContent = words;
    this.sayAloud(state, words);
  }

  // Screen readers say every change; of the time, once in a while is enough.
  sayAloud(state, words) {
    const now = performance.now();
    if (state === this.said.state && now - this.said.at < ALOUD) return;
    this.said = { state, at: now };
    this.aloud.textContent = words;
  }
}

// Where the hand was: a selection is as large as the photo.
function meant(item) {
  return item.from ?? item;
}

function meet([left, top, right, bottom], [l, t, r, b], reach) {
  return l - reach < right && r + reach > left && t - reach < bottom && b + reach > top;
}
