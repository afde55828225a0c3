// The listing: keeps itself up to date without moving what somebody looks at, and knows a few keys.
import "./ago.js";
import { follow, oneAtATime, say, staysAsItIs } from "./live.js";

const PAGE = 50;
const LONGEST_TIMER = 2 ** 31 - 1;
const listing = () => document.getElementById("listing");
const rows = () => document.querySelectorAll("#rows > tr[data-version]");

// What somebody is typing is theirs until they leave the field.
Idiomorph.defaults.callbacks.beforeNodeMorphed = (old, next) => !staysAsItIs(old, next);

let batch = 0;
let asked = 0; // grows with every request of the person's own, which a refresh must not overwrite
let timer = 0;
let isAway = false; // the stream

const versions = () => new Map([...rows()].map((row) => [row.id, row.dataset.version]));

/** Do something to the rows, and leave the first one in view where it was; at the top, new ones may push it down. */
function holdingStill(work) {
  const first = scrollY && [...rows()].find((row) => row.getBoundingClientRect().top > 0);
  const before = first && first.getBoundingClientRect().top;
  work();
  if (first && first.isConnected) scrollBy(0, first.getBoundingClientRect().top - before);
}

/** Show the rows anew, as many as there are, at least as new as the last change that was told. */
async function refresh() {
  const before = asked;
  const shown = listing().dataset.url;
  const address = new URL(shown, location.href);
  address.searchParams.set("rows", Math.min(Math.max(rows().length, PAGE), 1000));
  if (batch) address.searchParams.set("batch", batch);
  try {
    const answer = await fetch(address, { headers: { "HX-Request": "true" } });
    if (answer.headers.has("HX-Redirect")) location.assign(answer.headers.get("HX-Redirect"));
    const text = await answer.text();
    say(answer.ok && !isAway);
    if (listing().dataset.url !== shown) refreshSoon(); // a filter's answer came meanwhile: this is of the listing before
    if (!answer.ok || asked !== before || listing().dataset.url !== shown) return;
    const known = versions();
    const swap = { swapStyle: "morph:outerHTML", swapDelay: 0, settleDelay: 0 };
    holdingStill(() => htmx.swap(listing(), text, swap, { contextElement: listing() }));
    for (const row of rows()) row.classList.toggle("is-new", known.get(row.id) !== row.dataset.version);
  } catch {
    say(false);
  }
  wakeWhenFeesChange();
}

const refreshSoon = oneAtATime(refresh);

/** A fee is a step of time: the page is asked for again when the first one that it shows has moved on. */
function wakeWhenFeesChange() {
  clearTimeout(timer);
  const at = listing().dataset.refreshAt;
  if (at) timer = setTimeout(refreshSoon, Math.min(Math.max(Date.parse(at) - Date.now(), 0) + 50, LONGEST_TIMER));
}

follow(
  (number) => {
    batch = Math.max(batch, number);
    if (!document.hidden) refreshSoon();
  },
  (isLive) => {
    say(isLive);
    if (isLive && isAway) refreshSoon();
    isAway = !isLive;
  },
);

window.addEventListener("offline", () => say(false));
window.addEventListener("online", refreshSoon);
document.addEventListener("visibilitychange", () => document.hidden || refreshSoon());
document.body.addEventListener("htmx:beforeRequest", () => (asked += 1));
document.body.addEventListener("htmx:afterSettle", wakeWhenFeesChange);
document.body.addEventListener("htmx:afterSwap", () => {
  const count = document.getElementById("count");
  const shown = count && count.textContent.match(/[\d.,]+/);
  if (shown) count.textContent = count.textContent.replace(shown[0], rows().length.toLocaleString(document.documentElement.lang));
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, select, textarea");
  if (event.key === "/" && !isTyping) {
    event.preventDefault();
    document.getElementById("q").select();
  } else if (event.key === "Escape" && event.target.id === "q" && event.target.value) {
    event.target.value = "";
    event.target.dispatchEvent(new Event("input", { bubbles: true }));
  }
});

wakeWhenFeesChange();
document.querySelector(".chip[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
