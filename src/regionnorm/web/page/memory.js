// What the browser remembers: choices between visits, and during one, through a reload, everything.

const STORE = 'regionnorm';

export class Memory {
  constructor(page) {
    this.page = page;
    this.restored = false;
    window.addEventListener('pagehide', () => this.restored && this.keepNow());
  }

  choices() {
    const kept = read(localStorage);
    this.page.auto.checked = kept.auto ?? true;
    this.page.brush.value = kept.size ?? 40;
    this.page.softness.value = kept.soft ?? 0;
    this.page.hard.checked = kept.hard ?? false;
    this.page.keys.checked = kept.keys ?? true;
    if (kept.dark !== undefined) document.body.classList.toggle('dark', kept.dark);
  }

  prefer(choice) {
    write(localStorage, { ...read(localStorage), ...choice });
  }

  keep() {
    if (!this.restored) return;
    clearTimeout(this.keeping);
    this.keeping = setTimeout(() => this.keepNow(), 300);
  }

  keepNow() {
    const { steps, at } = this.page.timeline;
    const { running } = this.page.fills;
    const mark = running ? steps.indexOf(running.mark) : -1;
    const fill = { job: running?.job, saves: running?.saves, mark };
    write(sessionStorage, { visitor: this.page.server.visitor, steps, at, ...fill }, (kept) => {
      // Too much for the browser: the last picture and what is painted on it.
      const { start } = this.page.timeline;
      return { ...kept, steps: steps.slice(start - 1, at), at: at - start + 1, job: undefined };
    });
  }

  async restore() {
    const { server } = this.page;
    // Where the server is away just now, the next request comes back first.
    server.comeBack = () => (this.coming ??= this.comeBack().finally(() => (this.coming = null)));
    await server.comeBack().catch((error) => this.page.say('photo', error.message));
    this.page.element.dataset.ready = 'true';
    // The server removes what nobody has asked for in an hour.
    setInterval(() => server.ask('GET', '').catch(() => {}), 600_000);
  }

  async comeBack() {
    const { server, timeline, fills } = this.page;
    const kept = read(sessionStorage);
    const told = await server.come(kept.visitor);
    this.page.pictures = told.pictures;
    // What is filling belongs to the page that asked for it.
    if (kept.visitor === server.visitor && kept.steps) {
      const mark = kept.steps[kept.mark]; // before there may be fewer steps
      [timeline.steps, timeline.at] = [kept.steps, kept.at];
      timeline.keep(keptBy(told.pictures));
      if (kept.job) fills.resume(kept.job, mark, kept.saves);
    } else if (kept.steps?.length) this.page.say('photo', 'Your photos were removed from the server meanwhile. Open one again.');
    this.restored = true;
    this.page.showHistory();
    this.page.changed();
  }
}

// The numbers of all pictures whose files are there: fills need those of what they were made from.
export function keptBy(pictures) {
  return new Set(pictures.flatMap(({ number, parent, origin }) => [number, parent, origin]));
}

export function read(store, name = STORE) {
  try {
    return JSON.parse(store.getItem(name)) ?? {};
  } catch {
    return {}; // private windows may refuse
  }
}

export function write(store, value, shorter, name = STORE) {
  // A tenth of a pixel is enough, and a third of the room. Shares, such as softness, stay exact.
  const rounded = (key, one) => (typeof one === 'number' && Math.abs(one) > 1 ? Math.round(10 * one) / 10 : one);
  try {
    store.setItem(name, JSON.stringify(value, rounded));
  } catch {
    if (shorter) write(store, shorter(value), null, name);
  }
}
