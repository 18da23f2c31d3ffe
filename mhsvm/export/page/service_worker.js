// Keeps the site for use without a network. Each version has a cache of its own, which replaces the older ones.
"use strict";

const FILES = @@files@@;
// several sites of one server share their caches
const OWN = `mhsvm ${self.registration.scope} `;
const CACHE = `${OWN}@@version@@`;

async function install() {
  const cache = await caches.open(CACHE);
  // past the browser's own cache, which may hold files of an older version
  await cache.addAll(FILES.map((file) => new Request(file, { cache: "reload" })));
  await self.skipWaiting();
}

async function activate() {
  const older = (await caches.keys()).filter((name) => name.startsWith(OWN) && name !== CACHE);
  await Promise.all(older.map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function answer(request) {
  const cache = await caches.open(CACHE);
  const isPage = request.mode === "navigate" || new URL(request.url).pathname.endsWith("/index.html");
  return (await cache.match(isPage ? "./" : request, { ignoreSearch: true })) ?? fetch(request);
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const isOwn = event.request.url.startsWith(self.registration.scope);
  if (isOwn && event.request.method === "GET") event.respondWith(answer(event.request));
});
