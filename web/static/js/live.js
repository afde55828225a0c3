// Follows what changes in the shop: one stream a page, and one refresh at a time, however fast changes come.

const BEGIN_AGAIN = 2000;
const SOON = 50; // after a fee's next step
const LATER = 5000; // where the server's clock isn't there yet by ours
const LONGEST_TIMER = 2 ** 31 - 1;

/**
 * Call `refresh` when something has changed that `concerns(packages)`, and once more where that came meanwhile; unseen,
 * a page waits until somebody looks at it.
 */
export function keepUp(refresh, concerns = () => true) {
  const refreshSoon = oneAtATime(refresh);
  let batch = 0;
  let isAway = false;
  let timer = 0;
  let woken = "";
  follow(
    document.getElementById("live").dataset.batch,
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
  return {
    refreshSoon,
    /** The newest change that was told of; 0 before the first. */
    batch: () => batch,
    /** Say whether the last refresh was answered. */
    answered: (isGood) => say(isGood && !isAway),
    /** A fee is a step of time: refresh when the first that is shown has moved on. */
    wakeAt(instant) {
      clearTimeout(timer);
      if (!instant) return;
      const wait = Math.max(Date.parse(instant) - Date.now(), 0) + (instant === woken ? LATER : SOON);
      timer = setTimeout(
        () => {
          woken = instant;
          refreshSoon();
        },
        Math.min(wait, LONGEST_TIMER),
      );
    },
  };
}

/** Call `changed(batch)` for each change after a batch, `connected(isLive)` as the stream comes and goes. */
function follow(after, changed, connected) {
  const source = new EventSource(`/api/v1/updates?after=${after}`);
  source.addEventListener("open", () => connected(true));
  source.addEventListener("change", (event) => {
    after = Number(event.lastEventId);
    changed(after, JSON.parse(event.data).packages);
  });
  source.addEventListener("error", () => {
    connected(false);
    // After a refusal the browser gives up for good; it may have been a restart, or the end of the session.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => follow(after, changed, connected), BEGIN_AGAIN);
  });
}

/** Say in the page whether it follows. */
export function say(isLive) {
  const live = document.getElementById("live");
  live.textContent = isLive ? live.dataset.live : live.dataset.away;
  live.classList.toggle("is-live", isLive);
  live.classList.toggle("is-away", !isLive);
}

/** Tell what a redrawn page leaves alone: what somebody is typing into, and what is as it was. */
export function staysAsItIs(old, next) {
  const isTypedInto = old === document.activeElement && old.matches("input, select, textarea");
  return isTypedInto || old.isEqualNode(next);
}

/** Make a function that runs `work` now, and once more at its end where it was called meanwhile. */
function oneAtATime(work) {
  let isRunning = false;
  let isWanted = false;
  return async function run() {
    isWanted = true;
    if (isRunning) return;
    isRunning = true;
    while (isWanted) {
      isWanted = false;
      await work();
    }
    isRunning = false;
  };
}
