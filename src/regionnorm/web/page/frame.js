// The photo's border, which can be drawn outward: handles, fields, and what is new behind it.

const SIDES = ['left', 'top', 'right', 'bottom'];
const SNAP = 5; // screen pixels from the photo's own border that are taken for none
const STEP = 0.02; // of the photo's side, by an arrow key
const PAGE = 5; // such steps, with Shift or by Page Up and Page Down
const EDGE = 16; // screen pixels that a handle stays inside the stage

export class Frame {
  // `page` has `timeline`, `fills`, `view`, `find(selector)` and `say(place, text)`.
  constructor(page) {
    this.page = page;
    this.beyond = page.find('.rn-beyond');
    this.handles = SIDES.map((side) => page.find(`.rn-handle[data-side=${side}]`));
    this.fields = SIDES.map((side) => page.find(`.rn-margins input[name=${side}]`));
    this.held = null; // a handle that is dragged: {side, at, margin}
    this.drawn = null; // the margins as they are shown meanwhile
    this.handles.forEach((handle, side) => this.connect(handle, side));
    this.fields.forEach((field, side) => {
      field.addEventListener('change', () => this.set(side, Math.round(Number(field.value) || 0)));
      field.addEventListener('keydown', (event) => event.key === 'Escape' && this.takeBack(event, side));
    });
  }

  // Pixels of the photo to add on the left, top, right and bottom.
  get margins() {
    return this.drawn ?? this.page.timeline.margins;
  }

  get active() {
    return this.page.tool === 'expand';
  }

  most(side) {
    const { width, height } = this.page.timeline.picture;
    return side % 2 ? height : width;
  }

  with(side, amount) {
    return this.margins.map((old, index) => (index === side ? Math.min(this.most(side), Math.max(0, amount)) : old));
  }

  // `walk` is the same for all presses of a key until its handle is left: one step to undo.
  set(side, amount, walk) {
    const { timeline, fills } = this.page;
    if (!timeline.picture) return;
    const last = timeline.steps[timeline.at - 1];
    const margins = this.with(side, amount);
    this.drawn = null;
    this.page.say('fill', '');
    if (String(margins) === String(timeline.margins)) this.show();
    else if (walk && last.walk === walk && last !== fills.running?.mark) timeline.replace(last, { kind: 'expand', margins, walk });
    else timeline.add({ kind: 'expand', margins, walk });
  }

  // What was typed into a field goes before anything else that Escape stops.
  takeBack(event, side) {
    if (event.target.value !== String(this.margins[side])) event.stopPropagation();
    this.show();
  }

  connect(handle, side) {
    const [axis, sign] = [side % 2 ? 'clientY' : 'clientX', side < 2 ? -1 : 1];
    handle.addEventListener('pointerdown', (event) => {
      if (event.button) return;
      handle.setPointerCapture(event.pointerId);
      this.held = { side, at: event[axis], margin: this.margins[side] };
    });
    handle.addEventListener('pointermove', (event) => {
      if (this.held?.side !== side) return;
      const { scale } = this;
      const amount = Math.round(this.held.margin + (sign * (event[axis] - this.held.at)) / scale);
      this.drawn = this.with(side, amount * scale < SNAP ? 0 : amount);
      this.show();
    });
    handle.addEventListener('pointerup', () => {
      if (this.held && this.drawn) this.set(side, this.drawn[side]);
      this.held = null;
    });
    handle.addEventListener('pointercancel', () => this.drop());
    let walk = {};
    handle.addEventListener('blur', () => (walk = {}));
    handle.addEventListener('keydown', (event) => {
      const amount = this.amountBy(event, side);
      if (amount === undefined) return;
      event.preventDefault();
      this.set(side, amount, walk);
    });
  }

  // Let go of a handle as if nobody had taken it. Returns whether somebody had.
  drop() {
    if (!this.held) return false;
    [this.held, this.drawn] = [null, null];
    this.show();
    return true;
  }

  // What a key makes of a margin, as it does of any slider; those on the left and at the bottom run
  // outward, so that their border goes where the arrow points.
  amountBy({ key, shiftKey }, side) {
    const [now, most] = [this.margins[side], this.most(side)];
    const step = Math.max(1, Math.round(STEP * most));
    const arrow = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1 }[key];
    if (arrow) {
      const along = ['ArrowUp', 'ArrowDown'].includes(key) === Boolean(side % 2);
      const turned = along && ['left', 'bottom'].includes(SIDES[side]);
      return now + (turned ? -arrow : arrow) * step * (shiftKey ? PAGE : 1);
    }
    return { Home: 0, End: most, PageUp: now + PAGE * step, PageDown: now - PAGE * step }[key];
  }

  // Screen pixels for a pixel of the photo.
  get scale() {
    const { view, timeline } = this.page;
    return (view.scale * view.size[0]) / timeline.picture.width;
  }

  // Show the margins: in the view, which draws, in the fields, and to screen readers.
  show() {
    const { view, timeline } = this.page;
    const { picture } = timeline;
    if (!picture || !view.size) return;
    const { margins } = this;
    const ratio = picture.canvas[0] / picture.width;
    view.setMargins(margins.map((margin) => margin * ratio), this.active, Boolean(this.drawn));
    margins.forEach((margin, side) => {
      this.fields[side].max = this.most(side);
      if (document.activeElement !== this.fields[side] || !this.drawn) this.fields[side].value = margin;
      this.handles[side].setAttribute('aria-valuemax', this.most(side));
      this.handles[side].setAttribute('aria-valuenow', margin);
      this.handles[side].setAttribute('aria-valuetext', `${margin} pixels`);
    });
  }

  // Put frame and handles where the view has the photo's border.
  place() {
    const { view } = this.page;
    const shown = Boolean(view.size && this.page.timeline.picture);
    const any = this.margins.some(Boolean);
    this.beyond.hidden = !shown || !(any || this.active);
    for (const handle of this.handles) handle.hidden = !shown || !this.active;
    if (this.beyond.hidden) return;
    const [left, top, right, bottom] = view.margins;
    const from = view.toStage([-left, -top]);
    const to = view.toStage([view.size[0] + right, view.size[1] + bottom]);
    this.beyond.style.cssText = `left:${from[0]}px;top:${from[1]}px;width:${to[0] - from[0]}px;height:${to[1] - from[1]}px`;
    const inside = (value, room) => Math.min(room - EDGE, Math.max(EDGE, value));
    const seen = [0, 1].map((axis) => {
      const room = axis ? view.height : view.width;
      return inside((Math.max(0, from[axis]) + Math.min(room, to[axis])) / 2, room);
    });
    this.handles.forEach((handle, side) => {
      const place = [...seen];
      place[side % 2] = inside((side < 2 ? from : to)[side % 2], side % 2 ? view.height : view.width);
      [handle.style.left, handle.style.top] = place.map((value) => `${value}px`);
    });
  }
}
