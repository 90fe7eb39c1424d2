// Everything that was done, in one line that undo and redo walk along.
//
// A step is a picture that is painted on from then on ({kind: 'picture', picture}: opened, filled or
// gone back to), or something painted: {kind: 'stroke', erase, width, soft, points}, {kind: 'mask',
// number}, with the stroke that it was made `from` if there was one and, where the photo has grown
// since, its `box`: left, top, width and height; {kind: 'clear'}; or {kind: 'expand', margins}: pixels
// of the photo to add on the left, top, right and bottom. Points and boxes are in pixels of the mask,
// so that the display's size never matters.

const MOST = 400;

export class Timeline {
  constructor(changed) {
    this.steps = [];
    this.at = 0; // steps in effect
    this.changed = changed;
  }

  get picture() {
    return this.steps[this.start - 1]?.picture ?? null;
  }

  // Where what is painted on the current picture begins.
  get start() {
    let index = this.at;
    while (index > 0 && this.steps[index - 1].kind !== 'picture') index--;
    return index;
  }

  // What is painted on the current picture, without what was cleared.
  get items() {
    const items = this.steps.slice(this.start, this.at);
    return items.slice(items.map((item) => item.kind).lastIndexOf('clear') + 1);
  }

  // What was painted last, even where it is filled by now.
  get last() {
    const [before, last] = [this.steps[this.at - 2], this.steps[this.at - 1]];
    return before && last.picture && last.picture.parent === this.paintedOn(before)?.number ? before : last;
  }

  // The picture that a step was painted on.
  paintedOn(step) {
    return this.steps.slice(0, this.steps.lastIndexOf(step, this.at - 1)).findLast((one) => one.kind === 'picture')?.picture;
  }

  // Whether a mask of a picture lies where it should on the current one: a fill that came meanwhile
  // leaves the other pixels as they were.
  takes(picture) {
    return Boolean(this.picture) && placeOf(this.picture) === placeOf(picture);
  }

  // Put a step in the place of the one that was painted last; a fill of that is taken back. Returns
  // false where more was done meanwhile.
  replace(old, step) {
    if (this.last !== old) return false;
    this.at = this.steps.lastIndexOf(old, this.at - 1);
    this.add(step);
    return true;
  }

  // What is to be added to the current picture.
  get margins() {
    return this.items.findLast((item) => item.kind === 'expand')?.margins ?? [0, 0, 0, 0];
  }

  // Whether the current picture is a fill.
  get filled() {
    return Boolean(this.picture?.parent);
  }

  get canUndo() {
    return this.at > 1;
  }

  get canRedo() {
    return this.at < this.steps.length;
  }

  add(step) {
    this.steps.splice(this.at, Infinity, step);
    this.at++;
    this.trim();
    this.changed();
  }

  // A fill has come back: what was painted meanwhile, after `mark`, is painted on it.
  // Returns false where `mark` is not in effect any more.
  insert(mark, picture) {
    const index = this.steps.lastIndexOf(mark, this.at - 1);
    if (index < 0 || this.steps.slice(index + 1, this.at).some((step) => step.kind === 'picture')) return false;
    const before = mark.picture ?? this.paintedOn(mark);
    this.steps.splice(this.at); // what was undone meanwhile belongs to the picture before
    if (picture.grown.some(Boolean) && placeOf(before) !== placeOf(picture)) {
      const later = this.steps.splice(index + 1).map((step) => moved(step, before, picture));
      this.steps.push(...later);
      this.at = this.steps.length;
    }
    this.steps.splice(index + 1, 0, { kind: 'picture', picture });
    this.at++;
    this.changed();
    return true;
  }

  undo() {
    if (!this.canUndo) return;
    this.at--;
    this.changed();
  }

  redo() {
    if (!this.canRedo) return;
    this.at++;
    this.changed();
  }

  // The server keeps a number of pictures; steps that lead to others lead nowhere. The current one
  // stays, whatever is kept: what is painted on it is nowhere else.
  keep(numbers) {
    const before = this.steps.length;
    const current = this.picture?.number;
    const gone = ({ picture }) => Boolean(picture) && picture.number !== current && !numbers.has(picture.number);
    const undone = this.steps.splice(this.at);
    let first = this.steps.findLastIndex(gone) + 1;
    while (first < this.at && this.steps[first].kind !== 'picture') first++;
    this.steps.splice(0, first);
    this.at -= first;
    const lost = undone.findIndex(gone);
    this.steps.push(...(lost < 0 ? undone : undone.slice(0, lost)));
    if (this.steps.length !== before) this.changed();
  }

  trim() {
    if (this.steps.length <= MOST) return;
    const pictures = this.steps.map((step, index) => (step.kind === 'picture' ? index : -1)).filter((index) => index > 0);
    const first = pictures.find((index) => this.steps.length - index <= MOST);
    if (first === undefined || first >= this.at) return;
    this.steps.splice(0, first);
    this.at -= first;
  }
}

// Where what is painted on a picture lies.
function placeOf({ origin, canvas, frame }) {
  return [origin, canvas, frame].join();
}

// A step that was done on a picture, as it is on one that has grown from it.
function moved(step, before, after) {
  const [from, to] = [before, after].map((picture) => picture.canvas[0] / picture.width);
  const there = (point) => point.map((value, axis) => (value / from + after.grown[axis]) * to);
  const stroke = (one) => ({ ...one, width: (one.width * to) / from, points: one.points.map(there) });
  if (step.kind === 'stroke') return stroke(step);
  if (step.kind === 'mask') {
    const [left, top, ...size] = step.box ?? [0, 0, ...before.canvas];
    const box = [...there([left, top]), ...size.map((side) => (side * to) / from)];
    return { ...step, box, from: step.from && stroke(step.from) };
  }
  // What the border has grown by is not to be added again.
  if (step.kind === 'expand') return { ...step, margins: step.margins.map((margin, side) => Math.max(0, margin - after.grown[side])) };
  return step;
}
