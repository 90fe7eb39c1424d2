// The brush: paints a mask over a photo. Runs once, with `element` as the component's root.
//
// Strokes are kept as lists of points in the mask's own pixels, not as pictures: undoing replays
// what is left, and the display's size never matters to the mask.

const stage = element.querySelector('.rn-stage');
const empty = element.querySelector('.rn-empty');
const paper = element.querySelector('.rn-paper');
const image = paper.querySelector('img');
const canvas = paper.querySelector('.rn-mask');
const cursor = paper.querySelector('.rn-cursor');
const slider = element.querySelector('[data-size]');
const share = element.querySelector('[data-share]');
const told = element.querySelector('[data-told]');
const pen = canvas.getContext('2d');
const COLOUR = 'rgb(255, 20, 100)';

let photo = null; // {name, width, height, mask: [width, height], preview}
let tool = 'brush';
let zoom = 1;
let done = [];
let undone = [];
let stroke = null;
let brush = null; // {at, stroke}: the one that arrow keys move, and what it paints while it is down

// --- drawing -------------------------------------------------------------------------------------

function drawStroke(item, from = 0) {
  pen.globalCompositeOperation = item.erase ? 'destination-out' : 'source-over';
  pen.strokeStyle = pen.fillStyle = COLOUR;
  pen.lineWidth = item.width;
  pen.lineCap = pen.lineJoin = 'round';
  const points = item.points.slice(Math.max(0, from - 1));
  pen.beginPath();
  if (points.length === 1) {
    pen.arc(points[0][0], points[0][1], item.width / 2, 0, 2 * Math.PI);
    pen.fill();
    return;
  }
  points.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}

function redraw() {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const cleared = done.map((item) => item.kind).lastIndexOf('clear');
  for (const item of done.slice(cleared + 1)) drawStroke(item);
  refresh();
}

function add(item) {
  done.push(item);
  undone = [];
  redraw();
}

// Soft edges of strokes become hard ones: a mask has no half holes.
function maskPicture() {
  const copy = document.createElement('canvas');
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const target = copy.getContext('2d');
  target.drawImage(canvas, 0, 0);
  const pixels = target.getImageData(0, 0, copy.width, copy.height);
  const bytes = pixels.data;
  let holes = 0;
  for (let i = 0; i < bytes.length; i += 4) {
    const hole = bytes[i + 3] > 127;
    holes += hole;
    bytes[i] = bytes[i + 1] = bytes[i + 2] = hole ? 255 : 0;
    bytes[i + 3] = 255;
  }
  target.putImageData(pixels, 0, 0);
  return { copy, share: holes / (bytes.length / 4) };
}

// --- what is shown -------------------------------------------------------------------------------

function fit() {
  if (!photo || !stage.clientWidth) return;
  const room = Math.max(256, window.innerHeight - 410) - 4;
  const scale = Math.min(stage.clientWidth / photo.width, room / photo.height, 4) * zoom;
  paper.style.width = `${photo.width * scale}px`;
  paper.style.height = `${photo.height * scale}px`;
  refreshCursor();
}

function refresh() {
  const painted = done.length > 0 && done[done.length - 1].kind !== 'clear';
  element.querySelector('[data-do=undo]').disabled = !done.length;
  element.querySelector('[data-do=redo]').disabled = !undone.length;
  element.querySelector('[data-do=clear]').disabled = !painted;
  for (const button of element.querySelectorAll('[data-tool]')) {
    button.classList.toggle('rn-on', button.dataset.tool === tool);
    button.setAttribute('aria-pressed', button.dataset.tool === tool);
  }
  if (!photo) share.textContent = '';
  else {
    const hole = painted ? ` · hole ${percent(maskPicture().share)}` : '';
    share.textContent = `${photo.width} × ${photo.height}${hole}`;
  }
}

function percent(value) {
  return `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
}

// How many of the screen's pixels one of the mask's takes.
function scale() {
  return paper.clientWidth / canvas.width || 1;
}

function brushWidth() {
  // Relative to what is seen: the same gesture covers the same part of any photo.
  return Math.max(1, Number(slider.value) / scale());
}

function refreshCursor(at) {
  const size = brushWidth() * scale();
  cursor.style.width = cursor.style.height = `${size}px`;
  if (!at) return;
  cursor.style.left = `${(100 * at[0]) / canvas.width}%`;
  cursor.style.top = `${(100 * at[1]) / canvas.height}%`;
}

function newStroke(at) {
  return { kind: 'stroke', erase: tool === 'eraser', width: brushWidth(), points: [at] };
}

// --- pointer -------------------------------------------------------------------------------------

function position(event) {
  const box = canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * canvas.width) / box.width,
    ((event.clientY - box.top) * canvas.height) / box.height,
  ];
}

paper.addEventListener('pointerdown', (event) => {
  if (event.button !== 0 || !photo) return;
  event.preventDefault();
  liftBrush();
  brush = null;
  stage.focus({ preventScroll: true, focusVisible: false });
  paper.setPointerCapture(event.pointerId);
  stroke = newStroke(position(event));
  drawStroke(stroke);
});
paper.addEventListener('pointermove', (event) => {
  cursor.hidden = event.pointerType === 'touch';
  cursor.classList.remove('rn-down');
  refreshCursor(position(event));
  if (!stroke) return;
  const from = stroke.points.length;
  for (const part of event.getCoalescedEvents?.() ?? [event]) stroke.points.push(position(part));
  if (stroke.points.length === from) stroke.points.push(position(event));
  drawStroke(stroke, from);
});
for (const kind of ['pointerup', 'pointercancel'])
  paper.addEventListener(kind, () => {
    if (stroke) add(stroke);
    stroke = null;
  });
paper.addEventListener('pointerleave', () => (cursor.hidden = true));

// --- the brush without a mouse -------------------------------------------------------------------

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function moveBrush([right, down], far) {
  const step = (Math.max(8, Number(slider.value)) * (far ? 1.5 : 0.25)) / scale();
  brush ??= { at: middle(), stroke: null };
  const [x, y] = brush.at;
  brush.at = [within(x + right * step, canvas.width), within(y + down * step, canvas.height)];
  if (brush.stroke) {
    brush.stroke.points.push(brush.at);
    drawStroke(brush.stroke, brush.stroke.points.length - 1);
  }
  showBrush();
}

// Of what is seen of the photo.
function middle() {
  const box = stage.getBoundingClientRect();
  const [x, y] = position({ clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 });
  return [within(x, canvas.width), within(y, canvas.height)];
}

function within(value, most) {
  return Math.min(most, Math.max(0, value));
}

function pressBrush() {
  if (brush?.stroke) return liftBrush();
  brush ??= { at: middle(), stroke: null };
  brush.stroke = newStroke(brush.at);
  drawStroke(brush.stroke);
  showBrush();
}

function liftBrush() {
  if (!brush?.stroke) return;
  add(brush.stroke);
  brush.stroke = null;
  showBrush();
}

function showBrush() {
  const [x, y] = brush.at;
  cursor.hidden = false;
  cursor.classList.toggle('rn-down', Boolean(brush.stroke));
  refreshCursor(brush.at);
  cursor.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  const place = `${percent(x / canvas.width)} across, ${percent(y / canvas.height)} down`;
  told.textContent = `${brush.stroke ? 'Painting' : 'Brush'} at ${place}`;
}

stage.addEventListener('keydown', (event) => {
  if (!photo || event.target !== stage || event.ctrlKey || event.metaKey || event.altKey) return;
  if (ARROWS[event.key]) moveBrush(ARROWS[event.key], event.shiftKey);
  else if (event.key === 'Enter') event.repeat || pressBrush();
  else return;
  event.preventDefault();
});
stage.addEventListener('blur', () => {
  liftBrush();
  cursor.hidden = true;
});

// --- buttons and keys ----------------------------------------------------------------------------

const actions = {
  undo: () => done.length && (undone.push(done.pop()), redraw()),
  redo: () => undone.length && (done.push(undone.pop()), redraw()),
  clear: () => photo && done.length && add({ kind: 'clear' }),
  in: () => ((zoom = Math.min(8, zoom * 1.5)), fit()),
  out: () => ((zoom = Math.max(1, zoom / 1.5)), fit()),
  choose: () => uploadInput()?.click(),
};

element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.dataset.tool) tool = button.dataset.tool;
  if (button.dataset.do) actions[button.dataset.do]();
  refresh();
});
slider.addEventListener('input', () => refreshCursor());

function resizeBrush(factor) {
  slider.value = Math.round(Math.max(Number(slider.value) * factor, factor > 1 ? Number(slider.value) + 1 : 1));
  refreshCursor();
}

const keys = {
  b: () => (tool = 'brush'),
  e: () => (tool = 'eraser'),
  '[': () => resizeBrush(1 / 1.25),
  ']': () => resizeBrush(1.25),
  '+': actions.in,
  '-': actions.out,
  Delete: actions.clear,
};
const controlKeys = { z: actions.undo, y: actions.redo, Z: actions.redo, Enter: () => document.querySelector('#rn-fill')?.click() };

document.addEventListener('keydown', (event) => {
  const typing = event.target.closest?.('textarea, select, input:not([type=range])');
  if (typing || event.altKey || !element.isConnected) return;
  const action = (event.ctrlKey || event.metaKey ? controlKeys : keys)[event.key];
  if (!action) return;
  event.preventDefault();
  liftBrush(); // whatever it is, it holds for what is painted so far
  action();
  refresh();
});

// --- photos in -----------------------------------------------------------------------------------

// Through the page's own upload button, so that there is one way in, with its limits and messages.
function uploadInput() {
  return document.querySelector('#rn-start input[type=file]');
}

function send(file) {
  const input = uploadInput();
  if (!file || !input) return;
  const list = new DataTransfer();
  list.items.add(file);
  input.files = list.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
}

document.addEventListener('paste', (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((item) => item.type.startsWith('image/'));
  if (!file) return;
  event.preventDefault();
  send(file);
});
stage.addEventListener('dragover', (event) => {
  event.preventDefault();
  stage.classList.add('rn-over');
});
stage.addEventListener('dragleave', () => stage.classList.remove('rn-over'));
stage.addEventListener('drop', (event) => {
  event.preventDefault();
  stage.classList.remove('rn-over');
  send(event.dataTransfer.files[0]);
});

// --- what the page calls -------------------------------------------------------------------------

window.regionnorm = {
  // {name, width, height, mask: [width, height], preview: data URL}
  async open(next) {
    if (!next) return;
    image.src = next.preview;
    await image.decode();
    photo = next;
    [canvas.width, canvas.height] = next.mask;
    [done, undone, zoom] = [[], [], 1];
    [stroke, brush] = [null, null]; // begun on the photo before
    cursor.hidden = true;
    empty.hidden = true;
    paper.hidden = false;
    fit();
    redraw();
    // On a phone the brush would be out of sight.
    if (window.innerWidth < 640) element.scrollIntoView();
  },
  // A PNG as a data URL: white = hole, of the size that open() was told; '' without a photo.
  mask() {
    return photo ? maskPicture().copy.toDataURL('image/png') : '';
  },
};
new ResizeObserver(fit).observe(stage);
window.addEventListener('resize', fit);
refresh();
