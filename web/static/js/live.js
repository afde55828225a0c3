// Follows what changes in the shop: one stream a page, and one refresh at a time, however fast changes come.

const BEGIN_AGAIN = 2000;

/** Call `changed(batch)` for each change, `connected(isLive)` as the stream comes and goes. */
export function follow(changed, connected) {
  const source = new EventSource("/api/v1/updates");
  source.addEventListener("open", () => connected(true));
  source.addEventListener("change", (event) => changed(Number(event.lastEventId), JSON.parse(event.data).packages));
  source.addEventListener("error", () => {
    connected(false);
    // After a refusal the browser gives up for good; it may have been a restart, or the end of the session.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => follow(changed, connected), BEGIN_AGAIN);
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
export function oneAtATime(work) {
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
