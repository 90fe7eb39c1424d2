// What is found for the person, or loaded: one thing after the other, said while it lasts.

export class Finding {
  // `page` has `find(selector)` and `changed()`.
  constructor(page) {
    this.page = page;
    this.box = page.find('.rn-finding');
    this.said = this.box.querySelector('span');
    this.menu = page.find('.rn-find summary');
    this.title = this.menu.title;
    this.line = []; // {words, work, kind, stop, done, resolve}; the first is at work
    this.menu.addEventListener('click', (event) => this.has('find') && event.preventDefault());
  }

  has(kind) {
    return this.line.some((one) => one.kind === kind);
  }

  // Do `work(signal)`, which returns whether it found anything, after all that was asked for before.
  // `words` say what it is. The latest of a `kind` takes the place of those that wait. Resolves to
  // what the work returns, or false where it was not done.
  add(words, work, kind) {
    for (const one of this.line.slice(1)) if (kind && one.kind === kind) this.leave(one, false);
    const one = { words, work, kind, stop: new AbortController() };
    one.done = new Promise((resolve) => (one.resolve = resolve));
    this.line.push(one);
    this.tell();
    if (!this.working) this.work();
    return one.done;
  }

  async work() {
    this.working = true;
    for (let one = this.line[0]; one; one = this.line[0]) {
      this.tell();
      this.leave(one, await one.work(one.stop.signal));
    }
    this.working = false;
  }

  leave(one, found) {
    this.line = this.line.filter((other) => other !== one);
    one.resolve(found);
    this.tell();
  }

  // Whether all that is asked for now has been found, once that is known.
  async all() {
    const found = await Promise.all(this.line.map(({ done }) => done));
    return found.every(Boolean);
  }

  // Forget all of it, or the last `count`. Returns whether there was anything.
  cancel(count = Infinity) {
    const line = this.line.slice(-count);
    for (const one of line) {
      one.stop.abort();
      this.leave(one, false);
    }
    return line.length > 0;
  }

  tell() {
    const [first, ...others] = this.line;
    const looks = this.has('find');
    this.box.hidden = !first;
    if (first) this.said.textContent = `${first.words}…${others.length ? ` · ${others.length} more after it` : ''}`;
    this.menu.setAttribute('aria-disabled', looks);
    this.menu.title = looks ? 'This is being looked for already' : this.title;
    this.page.changed();
  }
}
