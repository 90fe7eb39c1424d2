// Several photos at once: dropped as files, folders or zips, filled one after the other, and given
// back as a zip.

import { read, write } from './memory.js';
import { Refused } from './server.js';

const KEPT = 'regionnorm-batch'; // in this tab, through a reload

export class Batch {
  constructor(dialog, server, say) {
    Object.assign(this, { dialog, server, say, busy: 0, sent: Promise.resolve() });
    this.note = dialog.querySelector('.rn-note');
    this.track = dialog.querySelector('.rn-track');
    this.rule = dialog.querySelector('.rn-rule input');
    this.what = dialog.querySelector('.rn-rule select');
    this.start = dialog.querySelector('[data-batch=start]');
    this.zip = dialog.querySelector('[data-batch=zip]');
    this.anew = dialog.querySelector('[data-batch=anew]');
    for (const drop of dialog.querySelectorAll('[data-take]')) {
      const input = drop.querySelector('input');
      input.addEventListener('change', () => this.take(drop.dataset.take, [...input.files]).then(() => (input.value = '')));
      drop.addEventListener('dragover', (event) => event.preventDefault());
      drop.addEventListener('drop', async (event) => {
        event.preventDefault();
        event.stopPropagation();
        this.take(drop.dataset.take, await filesOf(event.dataTransfer));
      });
    }
    for (const choice of [this.rule, this.what]) choice.addEventListener('change', () => this.refresh());
    this.start.addEventListener('click', () => this.fill());
    dialog.addEventListener('keydown', (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === 'Enter' && !this.start.disabled) this.fill();
    });
    this.zip.addEventListener('click', () => save(this.server.address(`batches/${this.number}/filled.zip`), 'filled.zip'));
    this.anew.addEventListener('click', () => {
      this.begin();
      this.remember();
    });
    this.begin();
  }

  // Other photos, other masks; the server forgets those of before.
  begin() {
    Object.assign(this, { number: null, counts: { photos: 0, masks: 0 } });
    this.zip.hidden = true;
    this.say('batch', '');
    this.refresh();
  }

  async open() {
    this.refresh();
    this.dialog.showModal();
    const kept = this.number ? {} : read(sessionStorage, KEPT);
    if (!kept.number || kept.visitor !== this.server.visitor || this.busy) return;
    // The page was loaded anew.
    this.busy++;
    try {
      const told = await this.server.ask('GET', `batches/${kept.number}`);
      [this.number, this.counts] = [kept.number, told];
      this.busy--;
      this.show(told);
    } catch {
      this.busy--; // not kept any more
    }
  }

  remember() {
    write(sessionStorage, { visitor: this.server.visitor, number: this.number }, null, KEPT);
  }

  // What comes while other files are on their way waits for them: they begin the batch.
  take(kind, files) {
    this.say('batch', '');
    this.busy++;
    this.refresh();
    this.sent = this.sent.then(() => this.send(kind, files));
    return this.sent;
  }

  async send(kind, files) {
    const failed = [];
    for (const [index, file] of files.entries()) {
      this.refresh(`Sending ${index + 1} of ${files.length}…`);
      try {
        this.number ??= (await this.server.ask('POST', 'batches')).batch;
        this.remember();
        const name = encodeURIComponent(file.inside ?? (file.webkitRelativePath || file.name));
        this.counts = await this.server.ask('POST', `batches/${this.number}/${kind}?name=${name}`, file);
      } catch (error) {
        failed.push(error.message);
      }
    }
    this.busy--;
    this.refresh();
    if (failed.length) this.say('batch', failed.slice(0, 3).join(' '));
  }

  refresh(words) {
    const { photos, masks } = this.counts;
    const kinds = this.rule.checked ? `${this.what.selectedOptions[0].text} found in each` : count(masks, 'mask');
    this.note.textContent = words ?? (photos || masks ? `${count(photos, 'photo')}, ${kinds}.` : '');
    this.start.disabled = this.busy > 0 || !photos || !(masks || this.rule.checked);
    this.anew.hidden = !(photos || masks);
    this.anew.disabled = this.busy > 0;
  }

  async fill() {
    this.say('batch', '');
    this.zip.hidden = true;
    this.busy++;
    this.track.hidden = false;
    const rule = this.rule.checked ? `?rule=${this.what.value}` : '';
    try {
      const last = await this.followed(`batches/${this.number}/fills${rule}`);
      if (last.state !== 'done') throw new Error(last.error ?? 'The photos were not filled; try again.');
      this.busy--;
      this.show(last);
    } catch (error) {
      this.busy--;
      this.refresh();
      this.say('batch', error.message);
    }
    this.track.hidden = true;
  }

  // A connection that breaks stops the work; asked for again it goes on with the next photo.
  async followed(path) {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.server.follow('POST', path, undefined, (line) => {
          attempt = 0;
          this.tell(line);
        });
      } catch (error) {
        // Right after a break, the server may not have noticed it yet.
        if ((error instanceof Refused && !(attempt && error.message.includes('being filled'))) || attempt > 5) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 400 * 2 ** attempt));
    }
  }

  // What became of the photos.
  show({ filled, unchanged, failed }) {
    const untouched = unchanged ? ` Nothing was found in ${unchanged}, which stay as they are.` : '';
    this.refresh(filled || unchanged || failed.length ? `${count(filled, 'photo')} filled.${untouched}` : undefined);
    this.zip.hidden = !(filled || unchanged);
    if (failed.length) this.say('batch', failed.map(({ photo, error }) => `${photo}: ${error}`).slice(0, 5).join(' · '));
  }

  tell({ photo, number = 0, of = 0, done = 0, packing }) {
    const share = packing ? 1 : (number + done) / Math.max(1, of);
    this.track.firstElementChild.style.width = `${100 * share}%`;
    this.track.setAttribute('aria-valuenow', Math.round(100 * share));
    this.refresh(packing ? 'Packing…' : `Filling ${number + 1} of ${of}: ${photo}`);
  }
}

function count(number, what) {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}

export function save(address, name) {
  const link = document.createElement('a');
  [link.href, link.download] = [address, name];
  link.click();
}

// All files that were dropped, those inside folders too.
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const files = [];
  const walk = async (entry) => {
    if (entry.name.startsWith('.')) return;
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      file.inside = entry.fullPath.slice(1); // with its folders, which tell files of one name apart
      files.push(file);
    } else {
      const reader = entry.createReader();
      // A reader gives a hundred at a time.
      for (;;) {
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!some.length) break;
        for (const one of some) await walk(one);
      }
    }
  };
  for (const entry of entries) await walk(entry);
  return files;
}
