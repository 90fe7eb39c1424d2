// The page: a photo in, its hole to the worker, the filled photo out. Nothing leaves the browser.

const find = (name) => document.querySelector(`#rn-${name}`);
const [input, fill, status, result] = [find('file'), find('fill'), find('status'), find('result')];
const [after, before, save, again] = [find('after'), find('before'), find('save'), find('again')];
const MOST_MASK = 4e6; // pixels of the mask's canvas; the brush has to keep up

let photo = null; // {name, width, height, canvas}: what is painted on
let filling = null; // the photo that the worker has; another may be opened meanwhile
let filled = null; // {name, canvas}: the result that is shown
let chosen = 0; // photos so far: the last one counts, though one before it may take longer
let worker = null;

function say(text, wrong = false) {
  status.textContent = text;
  status.classList.toggle('rn-wrong', wrong);
}

function canvasOf(width, height) {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [width, height];
  return [canvas, canvas.getContext('2d', { willReadFrequently: true })];
}

async function open(canvas, name, number = ++chosen) {
  const { width, height } = canvas;
  const scale = Math.min(1, Math.sqrt(MOST_MASK / (width * height)));
  const mask = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  const blob = await new Promise((done) => canvas.toBlob(done));
  if (number !== chosen) return;
  const preview = URL.createObjectURL(blob);
  try {
    await window.regionnorm.open({ name, width, height, mask, preview }); // fails if another comes
  } finally {
    URL.revokeObjectURL(preview); // decoded by now, or wanted no more
  }
  photo = { name, width, height, canvas };
  result.hidden = true;
  fill.disabled = Boolean(filling);
  start();
  if (filling) say(`Paint over what should go; ${filling.name} is still being filled.`);
  else say('Paint over what should go, then Fill.');
}

input.addEventListener('change', async () => {
  const [file] = input.files;
  if (!file) return;
  const number = ++chosen;
  try {
    const picture = await createImageBitmap(file);
    const [canvas, pen] = canvasOf(picture.width, picture.height);
    pen.fillStyle = 'white'; // behind what is transparent
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(picture, 0, 0);
    await open(canvas, file.name, number);
  } catch {
    if (number === chosen) say(`${file.name} is no picture that this browser can read.`, true);
  }
  input.value = '';
});

async function paintedMask({ width, height }) {
  const picture = new Image();
  picture.src = window.regionnorm.mask();
  await picture.decode();
  const [, pen] = canvasOf(width, height);
  pen.drawImage(picture, 0, 0, width, height);
  const { data } = pen.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: width * height }, (_, i) => Number(data[4 * i] > 127));
}

fill.addEventListener('click', async () => {
  const asked = photo; // what comes back is this one's, whatever is painted on by then
  const tell = (text, wrong) => say(asked === photo ? text : `${asked.name}: ${text}`, wrong);
  work(asked);
  try {
    const hole = await paintedMask(asked);
    if (!hole.includes(1)) return tell('Nothing is painted yet: paint over what should go.', true);
    if (!hole.includes(0)) return tell('All of it is painted: leave something to fill from.', true);
    const { width, height } = asked;
    const rgba = asked.canvas.getContext('2d').getImageData(0, 0, width, height);
    const pixels = new Uint8Array(3 * width * height);
    for (let i = 0; i < width * height; i++)
      for (let c = 0; c < 3; c++) pixels[3 * i + c] = rgba.data[4 * i + c];
    tell('Filling, on this computer …');
    const answer = await ask({ pixels, hole, height, width });
    hole.forEach((inside, i) => {
      if (inside) for (let c = 0; c < 3; c++) rgba.data[4 * i + c] = answer.filled[3 * i + c];
    });
    show(rgba, asked);
    tell(`Filled in ${answer.seconds.toFixed(1)} s.`);
  } catch (error) {
    tell(`It did not work: ${error.message}`, true);
  } finally {
    work(null);
  }
});

// One photo at a time: the worker's answers bear no names.
function work(on) {
  filling = on;
  fill.disabled = Boolean(on);
  document.body.classList.toggle('rn-busy', Boolean(on));
}

function start() {
  if (worker) return;
  worker = new Worker(new URL('./worker.js', document.baseURI), { type: 'module' });
  worker.onerror = () => (worker = null); // the next question begins anew, and is told what is wrong
}

function stop() {
  worker.terminate();
  worker = null;
}

function ask(question) {
  start();
  return new Promise((done, fail) => {
    worker.onmessage = ({ data }) => {
      if (data.unusable) stop(); // the next question loads the network anew
      if (data.error) fail(new Error(data.error));
      else done(data);
    };
    worker.onerror = (event) => {
      worker = null;
      fail(new Error(event.message || 'a file of this page is missing'));
    };
    worker.postMessage(question);
  });
}

function show(rgba, asked) {
  const [canvas, pen] = canvasOf(rgba.width, rgba.height);
  pen.putImageData(rgba, 0, 0);
  filled = { name: asked.name, canvas };
  for (const [target, source] of [[after, canvas], [before, asked.canvas]]) {
    [target.width, target.height] = [source.width, source.height];
    target.getContext('2d').drawImage(source, 0, 0);
  }
  result.hidden = false;
  // Not away from another photo that is painted on by now.
  if (asked === photo) result.scrollIntoView({ behavior: 'smooth', block: 'nearest' });
}

find('compare').addEventListener('input', ({ target }) => {
  before.style.clipPath = `inset(0 ${100 - target.value}% 0 0)`;
});
save.addEventListener('click', async () => {
  const { name, canvas } = filled;
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await new Promise((done) => canvas.toBlob(done)));
  link.download = `${name.replace(/\.[^.]*$/, '')}-filled.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
again.addEventListener('click', async () => {
  await open(filled.canvas, filled.name);
  window.scrollTo({ top: 0, behavior: 'smooth' });
});

// --- every processor, and no network -------------------------------------------------------------

// A page is isolated from its first load behind the service worker on: once, it is loaded again.
async function isolate() {
  if (!('serviceWorker' in navigator)) return;
  await navigator.serviceWorker.register('service.js');
  await navigator.serviceWorker.ready;
  if (self.crossOriginIsolated || chosen || sessionStorage.getItem('rn-again')) return;
  sessionStorage.setItem('rn-again', 'once');
  location.reload();
}
isolate()
  .catch(() => {}) // without it: one thread, and a network at every visit
  .finally(() => (document.body.dataset.ready = self.crossOriginIsolated ? 'isolated' : 'alone'));
