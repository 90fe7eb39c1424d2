// The page: a photo in, its hole to the worker, the filled photo out. Nothing leaves the browser.

const find = (name) => document.querySelector(`#rn-${name}`);
const [input, fill, status, result] = [find('file'), find('fill'), find('status'), find('result')];
const [after, before, save, again] = [find('after'), find('before'), find('save'), find('again')];
const MOST_MASK = 4e6; // pixels of the mask's canvas; the brush has to keep up

let photo = null; // {name, width, height, canvas}
let filled = null;
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

async function open(canvas, name) {
  const { width, height } = canvas;
  photo = { name, width, height, canvas };
  const scale = Math.min(1, Math.sqrt(MOST_MASK / (width * height)));
  const mask = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  const preview = URL.createObjectURL(await new Promise((done) => canvas.toBlob(done)));
  await window.regionnorm.open({ name, width, height, mask, preview });
  result.hidden = true;
  fill.disabled = false;
  start();
  say('Paint over what should go, then Fill.');
}

input.addEventListener('change', async () => {
  const [file] = input.files;
  if (!file) return;
  try {
    const picture = await createImageBitmap(file);
    const [canvas, pen] = canvasOf(picture.width, picture.height);
    pen.fillStyle = 'white'; // behind what is transparent
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(picture, 0, 0);
    await open(canvas, file.name);
  } catch {
    say(`${file.name} is no picture that this browser can read.`, true);
  }
  input.value = '';
});

async function paintedMask() {
  const picture = new Image();
  picture.src = window.regionnorm.mask();
  await picture.decode();
  const [, pen] = canvasOf(photo.width, photo.height);
  pen.drawImage(picture, 0, 0, photo.width, photo.height);
  const { data } = pen.getImageData(0, 0, photo.width, photo.height);
  return Uint8Array.from({ length: photo.width * photo.height }, (_, i) => Number(data[4 * i] > 127));
}

fill.addEventListener('click', async () => {
  const hole = await paintedMask();
  if (!hole.includes(1)) return say('Nothing is painted yet: paint over what should go.', true);
  if (!hole.includes(0)) return say('All of it is painted: leave something to fill from.', true);
  const { width, height } = photo;
  const rgba = photo.canvas.getContext('2d').getImageData(0, 0, width, height);
  const pixels = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++)
    for (let c = 0; c < 3; c++) pixels[3 * i + c] = rgba.data[4 * i + c];
  fill.disabled = true;
  document.body.classList.add('rn-busy');
  say('Filling, on this computer …');
  try {
    const answer = await ask({ pixels, hole, height, width });
    hole.forEach((inside, i) => {
      if (inside) for (let c = 0; c < 3; c++) rgba.data[4 * i + c] = answer.filled[3 * i + c];
    });
    show(rgba);
    say(`Filled in ${answer.seconds.toFixed(1)} s.`);
  } catch (error) {
    say(`It did not work: ${error.message}`, true);
  }
  document.body.classList.remove('rn-busy');
  fill.disabled = false;
});

function start() {
  worker ??= new Worker(new URL('./worker.js', document.baseURI), { type: 'module' });
}

function ask(question) {
  start();
  return new Promise((done, fail) => {
    worker.onmessage = ({ data }) => (data.error ? fail(new Error(data.error)) : done(data));
    worker.onerror = (event) => {
      worker = null;
      fail(new Error(event.message || 'a file of this page is missing'));
    };
    worker.postMessage(question);
  });
}

function show(rgba) {
  const [canvas, pen] = canvasOf(rgba.width, rgba.height);
  pen.putImageData(rgba, 0, 0);
  filled = canvas;
  for (const [target, source] of [[after, canvas], [before, photo.canvas]]) {
    [target.width, target.height] = [source.width, source.height];
    target.getContext('2d').drawImage(source, 0, 0);
  }
  result.hidden = false;
  result.scrollIntoView({ behavior: 'smooth', block: 'nearest' });
}

find('compare').addEventListener('input', ({ target }) => {
  before.style.clipPath = `inset(0 ${100 - target.value}% 0 0)`;
});
save.addEventListener('click', async () => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await new Promise((done) => filled.toBlob(done)));
  link.download = `${photo.name.replace(/\.[^.]*$/, '')}-filled.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
again.addEventListener('click', async () => {
  await open(filled, photo.name);
  window.scrollTo({ top: 0, behavior: 'smooth' });
});

// --- every processor, and no network -------------------------------------------------------------

// A page is isolated from its first load behind the service worker on: once, it is loaded again.
async function isolate() {
  if (!('serviceWorker' in navigator)) return;
  await navigator.serviceWorker.register('service.js');
  await navigator.serviceWorker.ready;
  if (self.crossOriginIsolated || photo || sessionStorage.getItem('rn-again')) return;
  sessionStorage.setItem('rn-again', 'once');
  location.reload();
}
isolate()
  .catch(() => {}) // without it: one thread, and a network at every visit
  .finally(() => (document.body.dataset.ready = self.crossOriginIsolated ? 'isolated' : 'alone'));
