// One parcel's page needs no script; with one, a photo goes as soon as it is taken, and what others do shows.
import { keepFresh } from "./fresh.js";
import { sendsItself } from "./photo.js";

const photo = document.getElementById("photo-form");
if (photo) sendsItself(photo);

const main = document.getElementById("main");
const shown = () => document.getElementById("fresh").dataset;
let isSent = false;

/** Tell whether a control is as the service gave it. */
function isUntouched(control) {
  if (control.tagName !== "SELECT") return control.value === control.defaultValue;
  const first = [...control.options].findIndex((option) => option.defaultSelected);
  return control.selectedIndex === Math.max(first, 0);
}

/** Draw what has changed, unless somebody has begun to fill in a form: they are told, and choose. */
function draw(morph) {
  if (isSent) return;
  const controls = [...main.querySelectorAll("input:not([type=file]), select")];
  if (!("typed" in shown()) && controls.every(isUntouched)) morph();
  else document.getElementById("changed").hidden = false;
}

main.addEventListener("submit", () => (isSent = true));
keepFresh(
  (packages) => packages.some((one) => one.package_id === shown().package && one.version > Number(shown().version)),
  draw,
);
