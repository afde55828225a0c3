// The counter: one field for the scanner, whose scans queue up; the service answers each with what lies on the counter.
import { album } from "./photo.js";
import { keptIn, Queue, SignedOut, storeOf } from "./queue.js";
import { isMuted, mute, play } from "./sound.js";

const SECOND_ENTER = 250; // milliseconds: a scanner that ends its codes with two line ends confirms nothing
const SUGGEST_AFTER = 150;
const LONGEST_LOG = 50;

const byId = (id) => document.getElementById(id);
const field = byId("q");
const away = byId("away");
const suggestions = byId("suggestions");
const log = byId("log");
const keys = byId("keys");
const work = () => byId("work");
const store = storeOf("counter");
const csv = (form) => [...new FormData(form)].map(([name, value]) => [name, String(value)]);

async function send(step, signal) {
  const body = new URLSearchParams(csv(work()));
  for (const [name, value] of Object.entries(step.state ?? {})) body.set(name, value);
  body.set("key", step.key);
  body.set("action", step.action);
  body.set("q", step.q);
  if (step.restored) for (const [name, value] of step.restored) body.append(name, value);
  const answer = await fetch("/mostrador", { method: "POST", body, signal, headers: { "HX-Request": "true" } });
  if (answer.status === 401) throw new SignedOut();
  if (answer.status >= 500 || answer.status === 429) throw new Error(answer.statusText);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const next = page.getElementById("work");
  if (!answer.ok || !next) {
    enter(`<li class="log-bad"></li>`, `${step.q} (${answer.status})`);
    play("bad");
    return;
  }
  show(document.adoptNode(next));
}

function enter(html, text) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const entry = holder.content.firstElementChild;
  if (text) entry.textContent = text;
  log.prepend(entry);
  while (log.children.length > LONGEST_LOG) log.lastElementChild.remove();
}

/** Put the answer in its place, say and sound it, and have the field ready. */
function show(next) {
  const typing = document.activeElement?.closest?.("#work input[name]")?.name;
  for (const entry of next.querySelectorAll("template[data-log]")) {
    log.prepend(document.importNode(entry.content, true));
    if (entry.content.querySelector(".log-good")) tally();
  }
  while (log.children.length > LONGEST_LOG) log.lastElementChild.remove();
  work().replaceWith(next);
  store.write("work", csv(next));
  store.write("log", log.innerHTML);
  byId("prompt").textContent = next.dataset.prompt;
  if (next.hasAttribute("data-done")) byHand({ position: "", observations: "" });
  const said = [...next.querySelectorAll("[data-say]")].map((part) => part.dataset.say).join(". ");
  if (said) byId("said").textContent = said;
  play(next.dataset.sound);
  document.body.dataset.answer = next.dataset.sound;
  const same = typing && next.elements.namedItem(typing);
  if (same instanceof HTMLInputElement) same.focus({ preventScroll: true });
  else ready();
}

function tally() {
  const done = (store.read("done") ?? 0) + 1;
  store.write("done", done);
  byId("tally").textContent = done;
}

function changed(waiting, trouble) {
  const badge = byId("waiting");
  badge.hidden = waiting < 2 && !trouble;
  badge.textContent = `${waiting} ${badge.dataset.text}`;
  away.hidden = !trouble;
  if (!trouble) return;
  away.textContent = trouble instanceof SignedOut ? `${away.dataset.signedOut} ` : away.dataset.away;
  if (trouble instanceof SignedOut) {
    const link = document.createElement("a");
    link.href = "/entrar?next=/mostrador";
    link.textContent = away.dataset.signIn;
    away.append(link);
  }
}

const queue = new Queue(keptIn(store), send, changed);

/** What is set beside the field belongs to the scan that is made now, not to when its turn comes. */
function settings() {
  return Object.fromEntries([...new FormData(byId("scan"))].filter(([name]) => name !== "q"));
}

const control = (name) => byId("scan").elements.namedItem(name);

/** Fill in what is set beside the field, and keep it over a reload. */
function byHand(values) {
  for (const [name, value] of Object.entries(values)) if (control(name)) control(name).value = value;
  store.write("settings", settings());
}

/** Do what is typed for the page itself, not for the service: what follows a mark, or a code that sets a choice. */
function isForThePage(text) {
  const [mark, rest] = [text[0], text.slice(1).trim()];
  // A number is of what is shown now; while a scan waits to be answered, it is a scan like any other.
  const shown = /^\d$/.test(text) && !queue.steps.length && work().querySelector(`[data-number="${text}"]`);
  const choice = document.querySelector(`#settings [data-command="${CSS.escape(text.toUpperCase())}"]`);
  if (mark === "@") byHand({ position: rest.toUpperCase() });
  else if (mark === "&") byHand({ carrier: rest });
  else if (mark === "#") byHand({ observations: rest });
  else if (/^\$\s*[\d.]+$/.test(text) && byId("received")) give(text);
  else if (shown) shown.click();
  else if (choice) choice.click();
  else return false;
  play("ask");
  return true;
}

function step(action, q, more = {}) {
  if (action === "choose" || action === "scan") close();
  queue.push({ action, q, state: { ...settings(), ...more } });
}

function ready() {
  if (!keys.open) field.focus({ preventScroll: true });
}

let lastEnter = -Infinity;

byId("scan").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = field.value.trim();
  const isEcho = !text && event.timeStamp - lastEnter < SECOND_ENTER;
  lastEnter = event.timeStamp;
  const chosen = suggestions.querySelector("[aria-selected=true]");
  field.value = "";
  store.write("typed", "");
  if (chosen) choose(chosen);
  else if (!isEcho && !isForThePage(text)) step("scan", text);
});

/** Note the cash that a customer gives. */
function give(text) {
  byId("received").value = text;
  reckon();
}

function reckon() {
  const received = Number(byId("received").value.replace(/\D/g, ""));
  const charged = work().elements.namedItem("charged").value.replace(/\D/g, "");
  const total = charged === "" ? Number(byId("total").dataset.total) : Number(charged);
  const change = received - total;
  const output = byId("change");
  output.textContent = !received ? "–" : change < 0 ? `${output.dataset.short} ${pesos(-change)}` : pesos(change);
  store.write("work", csv(work()));
}

const pesos = (amount) => `$${String(amount).replace(/\B(?=(\d{3})+$)/g, ".")}`;

document.addEventListener("input", (event) => {
  if (event.target === field) suggestSoon();
  else if (event.target.matches?.("#received, [name=charged]")) reckon();
});

// Photos go beside the scans: neither waits for the other.
const photos = album(
  ({ said, guide }, answer) => {
    const text = answer.ok ? said.kept : answer.status === 409 ? said.full : said.refused;
    byId("said").textContent = `${guide}: ${text}`;
    if (answer.ok) picture(said, answer.headers.get("Location"));
    else enter(`<li class="log-bad"></li>`, `${guide}: ${text}`);
    play(answer.ok ? "good" : "bad");
  },
  (waiting, trouble) => trouble && changed(queue.steps.length, trouble),
);

/** Show a photo on its parcel's card, where that still lies on the counter. */
function picture(said, address) {
  const list = work().querySelector(`[data-photos="${said.photos}"] + .photos`);
  if (!list) return;
  const image = Object.assign(new Image(160, 160), { src: address, alt: `${said.photo} ${list.children.length + 1}` });
  const item = document.createElement("li");
  item.append(image);
  list.append(item);
}

document.addEventListener("change", (event) => {
  const box = event.target.closest("[data-photos]");
  if (box) {
    const said = { ...box.dataset };
    for (const file of event.target.files) photos.push({ path: said.photos, guide: said.guide, said, file });
    event.target.value = "";
    ready();
  }
  if (event.target.type === "radio") {
    store.write("work", csv(work()));
    ready();
  }
  if (event.target.form === byId("scan")) store.write("settings", settings());
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  if (button.dataset.action === "choose") choose(button);
  else step(button.dataset.action, button.dataset.q ?? "");
  ready();
});

function choose(option) {
  close();
  step("choose", option.dataset.q, { customer_name: option.dataset.customer_name });
}

// Suggestions: what is typed by hand and may be somebody, while a scan goes past too fast to ask.
let timer = 0;
let suggesting = null;

function suggestSoon() {
  clearTimeout(timer);
  store.write("typed", field.value);
  timer = setTimeout(suggest, SUGGEST_AFTER);
}

async function suggest() {
  suggesting?.abort();
  const text = field.value.trim();
  const step = work().dataset.step;
  const isAsked = step === "customer" || step === "idle";
  if (!isAsked || text.length < 3 || (step === "idle" && /\d/.test(text))) return close();
  const asking = (suggesting = new AbortController());
  try {
    const answer = await fetch(`/mostrador/clientes?q=${encodeURIComponent(text)}`, {
      signal: asking.signal,
      headers: { "HX-Request": "true" },
    });
    const found = await answer.text();
    if (!answer.ok || asking !== suggesting || field.value.trim() !== text) return;
    suggestions.innerHTML = found;
    suggestions.hidden = !suggestions.children.length;
    field.setAttribute("aria-expanded", String(!suggestions.hidden));
  } catch {
    if (asking === suggesting) close(); // without suggestions the field works as well
  }
}

function close() {
  clearTimeout(timer);
  suggesting?.abort();
  suggesting = null;
  suggestions.hidden = true;
  suggestions.replaceChildren();
  field.setAttribute("aria-expanded", "false");
  field.removeAttribute("aria-activedescendant");
}

function move(by) {
  const options = [...suggestions.children];
  const at = options.findIndex((option) => option.ariaSelected === "true");
  const next = options[(at + by + options.length) % options.length];
  options.forEach((option) => (option.ariaSelected = String(option === next)));
  field.setAttribute("aria-activedescendant", next.id);
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (keys.open || event.altKey || event.metaKey) return;
  if (event.ctrlKey) {
    if (event.key === "Enter") step("scan", "");
    else if (event.key !== "/") return;
    event.preventDefault();
    field.select();
    return;
  }
  const isInField = event.target === field;
  const isElsewhere = !event.target.matches?.("input:not([type=radio]), textarea, select");
  if (/^F\d+$/.test(event.key)) {
    const target = work().querySelector(`[data-key=${event.key}]`) ?? document.querySelector(`[data-key=${event.key}]`);
    if (!target) return;
    event.preventDefault();
    target.click();
  } else if (event.key === "Escape") {
    event.preventDefault();
    if (event.target.closest?.(".by-hand input")) event.target.value = "";
    else if (!suggestions.hidden) close();
    else if (field.value) field.value = "";
    else step("cancel", "");
    ready();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && isInField && !suggestions.hidden) {
    event.preventDefault();
    move(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "?" && (isElsewhere || (isInField && !field.value))) {
    event.preventDefault();
    keys.showModal();
  } else if (event.key === "/" && isElsewhere) {
    event.preventDefault();
    field.select();
  } else if (event.key === "Enter" && event.target.closest?.(".by-hand")) {
    event.preventDefault();
    ready();
  } else if (event.key === "Enter" && event.target.closest?.("#work input:not([type=radio])")) {
    event.preventDefault();
    step("deliver", "");
    ready();
  } else if (event.key.length === 1 && isElsewhere && event.key !== " ") {
    field.focus({ preventScroll: true }); // the key itself lands in the field
  }
});

document.addEventListener("submit", (event) => event.target === work() && event.preventDefault());
keys.addEventListener("close", ready);
byId("help").addEventListener("click", () => keys.showModal());
byId("sound").addEventListener("click", () => {
  mute(!isMuted());
  byId("sound").ariaPressed = String(!isMuted());
  play("good");
  ready();
});
window.addEventListener("focus", ready);

// As this tab was before it was loaded again.
byId("sound").ariaPressed = String(!isMuted());
log.innerHTML = store.read("log") ?? "";
byId("tally").textContent = store.read("done") ?? "";
byHand(store.read("settings") ?? {});
// What another of our pages asks for is scanned at once; an address from elsewhere only fills in the field.
const wanted = field.value;
const isOurs = document.referrer.startsWith(`${location.origin}/`);
field.value = wanted && isOurs ? "" : wanted || (store.read("typed") ?? "");
const before = store.read("work") ?? [];
if (before.length) queue.steps.unshift({ key: "", action: "show", q: "", state: settings(), restored: before });
if (wanted) history.replaceState(null, "", "/mostrador");
if (wanted && isOurs) queue.push({ action: "scan", q: wanted, state: settings() });
queue.run();
ready();
