// A page that shows the shop as it is: asked for again as something changes, and only what differs is drawn anew.
import { keepUp, say, staysAsItIs } from "./live.js";

const PAUSE = 500; // between two refreshes, however fast changes come
const part = () => document.getElementById("fresh");

// What somebody has opened stays open.
const callbacks = {
  beforeNodeMorphed: (old, next) => !staysAsItIs(old, next),
  beforeAttributeUpdated: (name) => name !== "open",
};

/** Keep the page's `#fresh` so: `concerns(packages)` tells what matters to it, `draw(morph)` may refuse. */
export function keepFresh(concerns, draw = (morph) => morph()) {
  async function refresh() {
    try {
      const headers = live.batch() ? { "Seen-Batch": String(live.batch()) } : {};
      const answer = await fetch(part().dataset.url, { headers });
      if (answer.redirected) return location.assign(answer.url); // the session has ended
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      live.answered(answer.ok);
      const next = page.getElementById("fresh");
      if (answer.ok && next) draw(() => Idiomorph.morph(part(), next, { callbacks }));
    } catch {
      say(false);
    }
    live.wakeAt(part().dataset.refreshAt);
    await new Promise((done) => setTimeout(done, PAUSE));
  }

  const live = keepUp(refresh, concerns);
  live.wakeAt(part().dataset.refreshAt);
}
