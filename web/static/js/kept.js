// Photos that wait to be sent, kept by the browser over a reload until each has been answered.

const NAME = "paqueteria";
const STORE = "photos";

let opened = null;

/** What a request comes to; null where the browser keeps nothing: then a photo waits for as long as its page is there. */
function result(asked) {
  return new Promise((resolve) => {
    try {
      const request = asked();
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
    } catch (error) {
      console.warn("Photos aren't kept over a reload:", error);
      resolve(null);
    }
  });
}

function open() {
  opened ??= result(() => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" });
    return request;
  });
  return opened;
}

async function run(mode, ask) {
  const database = await open();
  return database && result(() => ask(database.transaction(STORE, mode).objectStore(STORE)));
}

export const photos = {
  all: async () => (await run("readonly", (store) => store.getAll())) ?? [],
  count: () => run("readonly", (store) => store.count()),
  add: (step) => run("readwrite", (store) => store.put(step)),
  remove: (step) => run("readwrite", (store) => store.delete(step.key)),
  forget: () => run("readwrite", (store) => store.clear()),
};
