// The hand on the photo: mouse, pen, fingers, wheel and arrow keys.
//
// What one pointer does is a tool's: `tools` below. A tool begins with a point of the photo and
// returns {move(points), end(), drop()}.

const TAP = { time: 250, reach: 10, again: 300, apart: 40 }; // milliseconds, screen pixels

export class Hand {
  // `page` has `ready()`, `width()` and `softness()` of the brush, `tool`, `painted(stroke)`,
  // `selected(stroke)` and `touched()`.
  constructor(stage, view, page) {
    Object.assign(this, { stage, view, page });
    this.cursor = stage.querySelector('.rn-cursor');
    this.pointers = new Map();
    this.gesture = null; // what the tool makes of the one pointer
    this.tap = null; // a dot that may be the first half of a double tap
    this.space = false;
    this.keyboard = null; // {at, gesture}: the brush that arrow keys move
    this.tools = {
      brush: (at) => this.paint(at, false),
      eraser: (at) => this.paint(at, true),
      select: (at) => this.paint(at, false, (stroke) => this.page.selected(stroke), 0),
      expand: () => this.pan(), // its handles take the hand themselves
    };
    for (const name of ['pointerdown', 'pointermove', 'pointerup', 'pointercancel'])
      stage.addEventListener(name, (event) => this[name](event));
    stage.addEventListener('pointerleave', () => this.showCursor(null));
    stage.addEventListener('wheel', (event) => this.wheel(event), { passive: false });
    stage.addEventListener('keydown', (event) => this.keydown(event));
    stage.addEventListener('blur', () => this.liftKeyboard());
    // Fingers are ours: the browser would zoom the page, or paste and search with long presses.
    stage.addEventListener('touchstart', (event) => this.onPhoto(event) && event.preventDefault(), { passive: false });
    stage.addEventListener('contextmenu', (event) => this.onPhoto(event) && event.preventDefault());
  }

  onPhoto(event) {
    return this.page.ready() && !event.target.closest('button, input, label, a, .rn-said, .rn-progress, .rn-finding');
  }

  place(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left - this.stage.clientLeft, event.clientY - box.top - this.stage.clientTop];
  }

  // --- tools -------------------------------------------------------------------------------------

  paint(at, erase, done = (stroke) => this.page.painted(stroke), soft = this.page.softness()) {
    const stroke = { kind: 'stroke', erase, width: this.page.width() / this.view.scale, soft, points: [at] };
    this.view.extend(stroke, 0);
    const leave = () => {
      this.view.stroke = null;
      this.view.refresh('mask');
    };
    return {
      stroke,
      move: (points) => {
        const from = stroke.points.length;
        stroke.points.push(...points);
        this.view.extend(stroke, from);
      },
      end: () => {
        leave();
        done(stroke);
      },
      drop: leave,
    };
  }

  // --- pointers ----------------------------------------------------------------------------------

  pointerdown(event) {
    if (!this.onPhoto(event) || event.button > 1) return;
    event.preventDefault();
    this.stage.focus({ preventScroll: true, focusVisible: false });
    this.stage.setPointerCapture(event.pointerId);
    this.liftKeyboard();
    this.keyboard = null;
    const at = this.place(event);
    this.pointers.set(event.pointerId, at);
    if (this.pointers.size > 1) return this.pinch(); // a second finger: it was no stroke
    const pans = event.button === 1 || this.space;
    const tap = this.tap;
    this.second = Boolean(tap && event.pointerType === 'touch' && distance(tap.at, at) < TAP.apart);
    if (tap) clearTimeout(tap.timer);
    if (tap && !this.second) this.keepTap();
    this.began = { at, time: event.timeStamp };
    this.gesture = pans ? this.pan() : this.tools[this.page.tool](this.view.toPhoto(...at));
    this.page.touched();
    this.stage.classList.toggle('rn-panning', pans);
  }

  pinch() {
    this.gesture?.drop?.();
    this.keepTap();
    this.gesture = null;
    this.pinching = true;
    this.second = false;
  }

  pan() {
    return { moveStage: (right, down) => this.view.move(right, down), move() {}, end() {}, drop() {} };
  }

  pointermove(event) {
    const at = this.place(event);
    this.showCursor(event.pointerType === 'touch' || !this.onPhoto(event) ? null : at);
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    if (this.pinching) {
      const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
      if (others.length) this.spread(last, at, others[0][1]);
    } else if (this.gesture?.moveStage) this.gesture.moveStage(at[0] - last[0], at[1] - last[1]);
    else if (this.gesture) {
      const parts = event.getCoalescedEvents?.() ?? [];
      const places = parts.length ? parts.map((part) => this.place(part)) : [at];
      this.gesture.move(places.map((place) => this.view.toPhoto(...place)));
    }
    this.pointers.set(event.pointerId, at);
  }

  // One of two fingers moved from `last` to `at`: zoom between them, and move along.
  spread(last, at, other) {
    const middle = (one) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
    const [from, to] = [middle(last), middle(at)];
    const before = distance(last, other);
    this.view.zoom(before > 8 ? distance(at, other) / before : 1, ...from, to);
  }

  pointerup(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.pinching) {
      this.pinching = this.pointers.size > 0;
      return;
    }
    const at = this.place(event);
    const short = event.timeStamp - this.began.time < TAP.time && distance(at, this.began.at) < TAP.reach;
    const gesture = this.gesture;
    this.gesture = null;
    this.stage.classList.remove('rn-panning');
    if (this.second && short) {
      gesture.drop();
      this.tap = null;
      this.view.fit();
      return;
    }
    if (this.second) this.keepTap();
    if (short && event.pointerType === 'touch' && gesture.stroke) {
      // A second tap may follow, which then meant the view.
      this.tap = { at, gesture, timer: setTimeout(() => this.keepTap(), TAP.again) };
    } else gesture.end();
  }

  pointercancel(event) {
    this.pointers.delete(event.pointerId);
    this.gesture?.drop?.();
    this.gesture = null;
    this.pinching = this.pinching && this.pointers.size > 0;
  }

  keepTap() {
    this.takeTap()?.gesture.end();
  }

  takeTap() {
    const { tap } = this;
    this.tap = null;
    clearTimeout(tap?.timer);
    return tap;
  }

  wheel(event) {
    if (!this.page.ready()) return;
    event.preventDefault();
    const lines = event.deltaMode ? 16 : 1;
    // Trackpads send a pinch as a wheel with Control, in smaller steps.
    this.view.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), ...this.place(event));
    this.showCursor(this.place(event));
  }

  // --- keys --------------------------------------------------------------------------------------

  keydown(event) {
    if (!this.page.ready() || event.target !== this.stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) this.moveKeyboard(step, event.shiftKey);
    else if (event.key === 'Enter') this.pressKeyboard();
    else return;
    event.preventDefault();
  }

  moveKeyboard([right, down], far) {
    const length = (Math.max(8, this.page.width()) * (far ? 1.5 : 0.25)) / this.view.scale;
    const brush = (this.keyboard ??= { at: this.view.toPhoto(this.view.width / 2, this.view.height / 2), gesture: null });
    brush.at = brush.at.map((value, index) => {
      const most = this.view.size[index];
      return Math.min(most, Math.max(0, value + [right, down][index] * length));
    });
    brush.gesture?.move([brush.at]);
    this.follow(brush.at);
    this.showKeyboard();
  }

  pressKeyboard() {
    if (!this.keyboard) this.moveKeyboard([0, 0], false);
    const brush = this.keyboard;
    if (brush.gesture) this.liftKeyboard();
    else {
      this.page.touched();
      brush.gesture = this.tools[this.page.tool](brush.at);
      this.showKeyboard();
    }
  }

  liftKeyboard() {
    const gesture = this.keyboard?.gesture;
    if (!gesture) return;
    this.keyboard.gesture = null;
    gesture.end();
    this.showKeyboard();
  }

  // Leave what is begun, by pointer or by keyboard, undone. Returns whether anything was.
  drop() {
    const held = [this.takeTap()?.gesture, this.release()].filter(Boolean);
    for (const gesture of held) gesture.drop();
    return this.dropKeyboard() || held.length > 0;
  }

  // End what is begun, as if the hand had let go.
  lift() {
    this.keepTap();
    this.release()?.end();
    this.liftKeyboard();
  }

  // What the pointer has begun, which is in no hand any more.
  release() {
    const { gesture } = this;
    if (!gesture) return null;
    this.gesture = null;
    this.pointers.clear();
    this.stage.classList.remove('rn-panning');
    return gesture;
  }

  dropKeyboard() {
    if (!this.keyboard?.gesture) return false;
    this.keyboard.gesture.drop();
    this.keyboard.gesture = null;
    this.showKeyboard();
    return true;
  }

  // The view goes where the brush goes.
  follow(at) {
    const [x, y] = this.view.toStage(at);
    const out = (value, room) => Math.min(0, room - 24 - value) + Math.max(0, 24 - value);
    const [right, down] = [out(x, this.view.width), out(y, this.view.height)];
    if (right || down) this.view.move(right, down);
  }

  showKeyboard() {
    const { at, gesture } = this.keyboard;
    this.showCursor(this.view.toStage(at), Boolean(gesture));
    const [x, y] = at.map((value, index) => Math.round((100 * value) / this.view.size[index]));
    this.page.tell(`${gesture ? 'Painting' : 'Brush'} at ${x} % across, ${y} % down`);
  }

  showCursor(at, down = false) {
    this.cursor.hidden = !at || !this.page.ready() || this.page.tool === 'expand';
    if (!at) return;
    this.cursor.classList.toggle('rn-down', down);
    const size = Math.max(4, this.page.width());
    this.cursor.style.cssText = `width:${size}px;height:${size}px;left:${at[0]}px;top:${at[1]}px`;
    this.cursorAt = at;
  }
}

function distance([x, y], [u, v]) {
  return Math.hypot(x - u, y - v);
}
