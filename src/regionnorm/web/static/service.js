// Between page and server: isolates the page, so that the network may take every processor, and
// keeps what was fetched, so that the page opens without a network too.

const KEPT = 'regionnorm';
const ISOLATED = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};

self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));
self.addEventListener('fetch', (event) => {
  const { request } = event;
  if (request.method === 'GET' && request.url.startsWith(self.registration.scope))
    event.respondWith(answer(event));
});

async function answer(event) {
  let response;
  try {
    response = await fetch(event.request);
    if (response.ok) event.waitUntil(keep(event.request, response.clone()));
  } catch (error) {
    response = await kept(event.request);
    if (!response) throw error;
  }
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATED)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

// Beside the answer: where the browser has no room, or keeps nothing at all, the page opens still.
async function keep(request, response) {
  try {
    await (await caches.open(KEPT)).put(request, response);
  } catch {} // then it needs a network the next time, too
}

async function kept(request) {
  try {
    return await (await caches.open(KEPT)).match(request, { ignoreSearch: true });
  } catch {
    return undefined;
  }
}
