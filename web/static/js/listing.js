// The listing: keeps itself up to date without moving what somebody looks at, and knows a few keys.
import "./ago.js";
import { keepUp, say, staysAsItIs } from "./live.js";

const PAGE = 50;
const listing = () => document.getElementById("listing");
const rows = () => document.querySelectorAll("#rows > tr[data-version]");

// What somebody is typing is theirs until they leave the field.
Idiomorph.defaults.callbacks.beforeNodeMorphed = (old, next) => !staysAsItIs(old, next);

let asked = 0; // grows with every request of the person's own, which a refresh must not overwrite

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
  if (live.batch()) address.searchParams.set("batch", live.batch());
  try {
    const answer = await fetch(address, { headers: { "HX-Request": "true" } });
    if (answer.headers.has("HX-Redirect")) location.assign(answer.headers.get("HX-Redirect"));
    const text = await answer.text();
    live.answered(answer.ok);
    if (listing().dataset.url !== shown) live.refreshSoon(); // a filter's answer came: this is of the listing before
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

const live = keepUp(refresh);
const wakeWhenFeesChange = () => live.wakeAt(listing().dataset.refreshAt);

window.addEventListener("offline", () => say(false));
window.addEventListener("online", live.refreshSoon);
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
