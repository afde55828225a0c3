// Whoever signs out leaves nothing of the shop's people in this browser; what still waits is asked about first.
import { photos } from "./kept.js";
import { stepsOf, storeOf } from "./queue.js";

const form = document.querySelector("form[action='/salir']");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const waiting = stepsOf(storeOf("counter")).length + (await photos.count());
  if (waiting && !confirm(form.dataset.waiting)) return;
  await photos.forget();
  addEventListener("pagehide", () => sessionStorage.clear()); // an answer may come until then
  form.submit();
});
