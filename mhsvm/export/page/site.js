
// Part of a site only: keeps it for use without a network.
navigator.serviceWorker?.register("service_worker.js").catch((error) => console.warn(`no use offline: ${error.message}`));
