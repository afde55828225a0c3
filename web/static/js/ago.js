// How long ago something was goes on while the page is looked at; told as the service tells it.
const EVERY = 30_000;
const THRESHOLD = 1.2;
const UNITS = { year: 31_536_000, month: 2_592_000, week: 604_800, day: 86_400, hour: 3600, minute: 60 };
const format = new Intl.RelativeTimeFormat(document.documentElement.lang);

function tell(time) {
  const seconds = Math.max((Date.now() - Date.parse(time.dateTime)) / 1000, 0);
  const [unit, length] = Object.entries(UNITS).find(([, each]) => seconds / each >= THRESHOLD) ?? ["minute", 60];
  time.textContent = format.format(-Math.max(Math.round(seconds / length), 1), unit);
}

setInterval(() => document.querySelectorAll("[data-ago]").forEach(tell), EVERY);
