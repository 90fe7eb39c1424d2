// Buttons, keys, and files that are dropped or pasted: each calls one thing of the page.

import { filesOf } from './batch.js';

export class Controls {
  constructor(page) {
    this.page = page;
    const act = {
      choose: () => this.page.find('.rn-file').click(),
      undo: () => this.page.undo(),
      redo: () => this.page.timeline.redo(),
      clear: () => this.page.clear(),
      in: () => this.page.view.zoom(1.5, ...this.centre()),
      out: () => this.page.view.zoom(1 / 1.5, ...this.centre()),
      fit: () => this.page.view.fit(),
      fill: () => this.page.fill(),
      another: () => this.page.fills.another(),
      cancel: () => this.page.fills.cancel(),
      stop: () => this.page.finding.cancel(),
      download: () => this.page.download(),
      load: () => this.chooseMask(''),
      inverted: () => this.chooseMask('invert=1'),
      scratches: () => this.page.findMask('auto:scratches', 'scratches'),
      text: () => this.page.findMask('auto:text', 'text'),
      save: () => this.page.saveMask(),
      batch: () => this.page.batch.open(),
      regions: () => this.page.showRegions(),
      // gradio's own pane, which lies over the page.
      program: () => document.querySelector('button.show-api')?.click(),
      help: () => this.page.find('.rn-help').showModal(),
      theme: () => this.page.memory.prefer({ dark: document.body.classList.toggle('dark') }),
      close: (button) => button.closest('dialog').close(),
    };
    this.act = act;
    this.page.element.addEventListener('click', (event) => {
      const button = event.target.closest('button');
      this.closeMenus((menu) => !menu.contains(event.target) || event.target.closest('.rn-list button'));
      if (!button) return;
      if (button.dataset.tool) this.choose(button.dataset.tool);
      if (button.dataset.do) act[button.dataset.do]?.(button);
      if (button.dataset.number) this.page.goTo(button.dataset.number);
      if (button.dataset.example) this.page.opening(`examples/${button.dataset.example}`);
    });
    this.page.find('.rn-file').addEventListener('change', ({ target }) => {
      this.page.open(target.files[0]);
      target.value = '';
    });
    this.page.find('.rn-mask-file').addEventListener('change', ({ target }) => {
      if (target.files[0]) this.page.loadMask(`${this.maskQuery}&name=${encodeURIComponent(target.files[0].name)}`, target.files[0]);
      target.value = '';
    });
    this.page.brush.addEventListener('input', () => {
      this.page.memory.prefer({ size: Number(this.page.brush.value) });
      if (this.page.hand.cursorAt) this.page.hand.showCursor(this.page.hand.cursorAt);
    });
    this.page.softness.addEventListener('input', () => this.page.memory.prefer({ soft: Number(this.page.softness.value) }));
    this.page.hard.addEventListener('change', () => {
      this.page.memory.prefer({ hard: this.page.hard.checked });
      this.page.changed();
    });
    this.page.auto.addEventListener('change', () => this.page.memory.prefer({ auto: this.page.auto.checked }));
    this.page.keys.addEventListener('change', () => this.page.memory.prefer({ keys: this.page.keys.checked }));
    this.page.compare.addEventListener('input', () => this.page.setSplit(this.page.splitOf(Number(this.page.compare.value) / 1000)));
    const before = this.page.find('[data-do=compare]');
    before.addEventListener('pointerdown', () => this.page.holdBefore(true));
    for (const name of ['pointerup', 'pointerleave', 'pointercancel', 'blur']) before.addEventListener(name, () => this.page.holdBefore(false));
    before.addEventListener('keydown', (event) => [' ', 'Enter'].includes(event.key) && this.page.holdBefore(true));
    before.addEventListener('keyup', () => this.page.holdBefore(false));
    this.connectKeys();
    this.connectDrops();
  }

  centre() {
    return this.page.hand.keyboard ? this.page.view.toStage(this.page.hand.keyboard.at) : [];
  }

  choose(tool) {
    for (const button of this.page.element.querySelectorAll('[data-tool]'))
      button.setAttribute('aria-pressed', button.dataset.tool === tool);
    this.page.element.dataset.mode = tool;
    this.page.frame.show();
  }

  // Close those menus; who was in one is at its button again. Returns whether one was open.
  closeMenus(which = () => true) {
    const open = [...this.page.element.querySelectorAll('.rn-menu[open], .rn-pop[open]')].filter(which);
    for (const menu of open) {
      if (menu.contains(document.activeElement)) menu.querySelector('summary').focus();
      menu.open = false;
    }
    return open.length > 0;
  }

  escape() {
    const { frame, hand, finding, fills } = this.page;
    return this.closeMenus() || frame.drop() || hand.drop() || finding.cancel() || fills.cancel();
  }

  soften(step) {
    const { softness } = this.page;
    softness.value = Number(softness.value) + step;
    softness.dispatchEvent(new Event('input'));
  }

  chooseMask(query) {
    this.maskQuery = query;
    this.page.find('.rn-mask-file').click();
  }

  resizeBrush(factor) {
    const size = Number(this.page.brush.value);
    this.page.brush.value = factor > 1 ? Math.max(size * factor, size + 1) : size * factor;
    this.page.brush.dispatchEvent(new Event('input'));
  }

  connectKeys() {
    const { act } = this;
    const keys = {
      b: () => this.choose('brush'),
      e: () => this.choose('eraser'),
      s: () => this.choose('select'),
      x: () => this.choose('expand'),
      '{': () => this.soften(-10),
      '}': () => this.soften(10),
      '[': () => this.resizeBrush(1 / 1.25),
      ']': () => this.resizeBrush(1.25),
      '+': act.in,
      '=': act.in,
      '-': act.out,
      0: act.fit,
      o: act.choose,
      c: () => this.page.holdBefore(this.page.timeline.filled),
      Delete: act.clear,
      '?': act.help,
      Escape: () => this.escape(),
    };
    const controlKeys = { z: act.undo, y: act.redo, Z: act.redo, s: act.download, Enter: act.fill };
    let walks = false;
    document.addEventListener('pointerdown', () => (walks = false), true);
    document.addEventListener('keydown', (event) => {
      walks ||= event.key === 'Tab';
      const writes = writesWithAlt(event);
      if (event.target.closest?.('dialog') || (event.altKey && !writes) || !this.page.element.isConnected) return;
      const controls = (event.ctrlKey || event.metaKey) && !writes;
      const typing = event.target.closest?.('textarea, select, input:not([type=range], [type=checkbox])');
      if (typing && !(event.key === 'Escape' || (controls && event.key === 'Enter'))) return;
      // What is typed holds, though the field is not left.
      if (typing && event.key === 'Enter') typing.dispatchEvent(new Event('change'));
      if (event.key === ' ') {
        // Who walks with the keyboard presses what is marked; who clicked it means the photo.
        if (walks && event.target.closest?.('button, input, summary, a')) return;
        event.preventDefault();
        this.page.hand.space = true;
        this.page.stage.classList.add('rn-space');
        return;
      }
      const action = (controls ? controlKeys : keys)[keyOf(event)];
      // Who speaks to the computer, or hits keys by chance, can turn them off.
      if (!action || (!controls && event.key.length === 1 && !this.page.keys.checked)) return;
      event.preventDefault();
      if (event.key === 'Enter') this.page.hand.liftKeyboard();
      action();
    });
    document.addEventListener('keyup', (event) => {
      if (event.key.toLowerCase() === 'c') this.page.holdBefore(false);
      if (event.key !== ' ') return;
      this.page.hand.space = false;
      this.page.stage.classList.remove('rn-space');
    });
    window.addEventListener('blur', () => this.page.holdBefore(false));
  }

  connectDrops() {
    document.addEventListener('paste', (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find((item) => item.type.startsWith('image/'));
      if (!file) return;
      event.preventDefault();
      this.page.open(file);
    });
    const drags = (on) => (event) => {
      event.preventDefault();
      this.page.element.classList.toggle('rn-over', on);
    };
    this.page.element.addEventListener('dragover', drags(true));
    this.page.element.addEventListener('dragleave', drags(false));
    this.page.element.addEventListener('drop', async (event) => {
      drags(false)(event);
      const files = await filesOf(event.dataTransfer);
      if (files.length === 1 && !/\.zip$/i.test(files[0].name)) return this.page.open(files[0]);
      if (!files.length) return undefined;
      this.page.batch.open();
      return this.page.batch.take('photos', files);
    });
  }
}

// Shift alone makes a letter large, not Caps Lock.
function keyOf({ key, shiftKey }) {
  if (key.length > 1) return key;
  return shiftKey ? key.toUpperCase() : key.toLowerCase();
}

// Many keyboards have brackets and braces on AltGr, which Windows tells as Control and Alt, or on
// Option, which is Alt to browsers.
function writesWithAlt(event) {
  return event.getModifierState('AltGraph') || (event.altKey && '[]{}'.includes(event.key));
}
