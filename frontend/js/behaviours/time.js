/* Times are served in UTC; here they get the reader's zone, which the title names beside UTC.

data-local="full|date|time" on <time datetime="…Z">. A date is a day in UTC, as the statement counts days; it only gets the form of the other times. */

const locale = document.documentElement.lang || undefined;
const shown = {
  date: new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeZone: "UTC" }),
  full: new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" }),
  time: new Intl.DateTimeFormat(locale, { timeStyle: "medium", hourCycle: "h23" }),
};
const exact = new Intl.DateTimeFormat(locale, { dateStyle: "long", timeStyle: "long", hourCycle: "h23" });

function localize(root) {
  for (const element of root.querySelectorAll?.("time[datetime]:not([data-localized])") ?? []) {
    const style = element.dataset.local ?? "full";
    const moment = new Date(element.dateTime);
    if (!(style in shown) || Number.isNaN(moment.getTime())) continue;
    const utc = element.title || `${element.dateTime.slice(0, 19).replace("T", " ")} UTC`;
    element.textContent = shown[style].format(moment);
    element.title = `${exact.format(moment)}\n${utc}`;
    element.dataset.localized = "";
  }
}

document.addEventListener("htmx:load", (event) => localize(event.detail.elt));
localize(document);
