// Photos that wait to be sent, kept by the browser over a reload until each has been answered.

const NAME = "paqueteria";
const STORE = "photos";

let opened = null;

/** Open the store; null where the browser keeps nothing: then a photo waits for as long as its page is there. */
function open() {
  opened ??= new Promise((resolve) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
  });
  return opened;
}

async function run(mode, ask) {
  const database = await open();
  if (!database) return null;
  const request = ask(database.transaction(STORE, mode).objectStore(STORE));
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

export const photos = {
  all: async () => (await run("readonly", (store) => store.getAll())) ?? [],
  count: () => run("readonly", (store) => store.count()),
  add: (step) => run("readwrite", (store) => store.put(step)),
  remove: (step) => run("readwrite", (store) => store.delete(step.key)),
  forget: () => run("readwrite", (store) => store.clear()),
};
