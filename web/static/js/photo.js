// Photos, made smaller before they travel: telephones take far larger ones than anybody looks at.
import { photos } from "./kept.js";
import { Queue, SignedOut } from "./queue.js";

const EDGE = 1600;
const LONGEST_UPLOAD = 60_000;

/** Give the photo at a size that is worth sending; what this browser can't draw the service looks at. */
async function smaller(file) {
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, EDGE / Math.max(picture.width, picture.height));
    const canvas = new OffscreenCanvas(Math.ceil(picture.width * scale), Math.ceil(picture.height * scale));
    const pen = canvas.getContext("2d");
    pen.fillStyle = "white";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    return new File([await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 })], "photo.jpg");
  } catch {
    return file;
  }
}

/** Sends photos beside whatever else goes on, one at a time, each until it is answered; `told(step, answer)`. */
export function album(told, changed) {
  const send = async ({ key, path, file, ...step }, signal) => {
    const body = new FormData();
    body.set("photo", file);
    const answer = await fetch(path, { method: "POST", body, signal, headers: { "Idempotency-Key": key } });
    if (answer.status === 401) throw new SignedOut();
    if (answer.status >= 500 || answer.status === 429) throw new Error(answer.statusText);
    told(step, answer);
  };
  const queue = new Queue({ ...photos, steps: [] }, send, changed, LONGEST_UPLOAD);
  let last = photos.all().then((kept) => {
    queue.steps.push(...kept.sort((one, other) => one.at - other.at));
    queue.run();
  });
  return {
    push(step) {
      last = last.then(async () => queue.push({ ...step, file: await smaller(step.file), at: Date.now() }));
    },
  };
}

/** Let a form go as soon as its photo is chosen. */
export function sendsItself(form) {
  form.addEventListener("change", async ({ target }) => {
    const chosen = new DataTransfer();
    for (const file of target.files) chosen.items.add(await smaller(file));
    target.files = chosen.files;
    form.setAttribute("aria-busy", "true");
    form.requestSubmit();
  });
}
