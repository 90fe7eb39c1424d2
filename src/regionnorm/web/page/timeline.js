// Everything that was done, in one line that undo and redo walk along.
//
// A step is a picture that is painted on from then on ({kind: 'picture', picture}: opened, filled or
// gone back to), or something painted: {kind: 'stroke', erase, width, soft, points}, {kind: 'mask',
// number}, with the stroke that it was made `from` if there was one, {kind: 'clear'}; or {kind:
// 'expand', margins}: pixels of the photo to add on the left, top, right and bottom. Points are in
// pixels of the mask, so that the display's size never matters.

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
      const later = this.steps.splice(index + 1).flatMap((step) => moved(step, before, picture));
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

  // The server keeps a number of pictures; steps that lead to others lead nowhere.
  keep(numbers) {
    const before = this.steps.length;
    let first = this.steps.findLastIndex((step) => step.kind === 'picture' && !numbers.has(step.picture.number)) + 1;
    while (first < this.steps.length && this.steps[first].kind !== 'picture') first++;
    this.steps.splice(0, first);
    this.at = Math.max(0, this.at - first);
    if (this.at === 0 && this.steps.length) this.at = 1;
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

// What was painted on a picture, as it lies on one that has grown from it.
function moved(step, before, after) {
  if (step.kind === 'clear') return [step];
  if (step.kind !== 'stroke') return []; // found or drawn for the picture's size
  const [from, to] = [before, after].map((picture) => picture.canvas[0] / picture.width);
  const points = step.points.map((point) => point.map((value, axis) => (value / from + after.grown[axis]) * to));
  return [{ ...step, width: (step.width * to) / from, points }];
}
