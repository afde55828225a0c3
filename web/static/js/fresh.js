// A page that shows the shop as it is: asked for again as something changes, and only what differs is drawn anew.
import { follow, oneAtATime, say, staysAsItIs } from "./live.js";

const PAUSE = 500; // between two refreshes, however fast changes come
const LONGEST_TIMER = 2 ** 31 - 1;
const part = () => document.getElementById("fresh");

// What somebody has opened stays open.
const callbacks = {
  beforeNodeMorphed: (old, next) => !staysAsItIs(old, next),
  beforeAttributeUpdated: (name) => name !== "open",
};

/** Keep the page's `#fresh` so: `concerns(packages)` tells what matters to it, `draw(morph)` may refuse. */
export function keepFresh(concerns, draw = (morph) => morph()) {
  let batch = 0;
  let isAway = false;
  let timer = 0;

  async function refresh() {
    try {
      const headers = batch ? { "Seen-Batch": String(batch) } : {};
      const answer = await fetch(part().dataset.url, { headers });
      if (answer.redirected) return location.assign(answer.url); // the session has ended
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      say(answer.ok && !isAway);
      const next = page.getElementById("fresh");
      if (answer.ok && next) draw(() => Idiomorph.morph(part(), next, { callbacks }));
    } catch {
      say(false);
    }
    wakeWhenFeesChange();
    await new Promise((done) => setTimeout(done, PAUSE));
  }

  const refreshSoon = oneAtATime(refresh);

  function wakeWhenFeesChange() {
    clearTimeout(timer);
    const at = part().dataset.refreshAt;
    const wait = Date.parse(at) - Date.now();
    if (at && wait > -PAUSE) timer = setTimeout(refreshSoon, Math.min(wait + PAUSE, LONGEST_TIMER));
  }

  follow(
    (number, packages) => {
      if (!concerns(packages)) return;
      batch = Math.max(batch, number);
      if (!document.hidden) refreshSoon();
    },
    (isLive) => {
      say(isLive);
      if (isLive && isAway) refreshSoon();
      isAway = !isLive;
    },
  );
  document.addEventListener("visibilitychange", () => document.hidden || refreshSoon());
  wakeWhenFeesChange();
}
