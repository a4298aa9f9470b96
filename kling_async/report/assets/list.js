// The list of rows. All have one height, so that of ten thousand only those in sight need to be there.

const OVERSCAN = 3;
const list = byId("rows");
const mounted = new Map(); // from the place in the list to its element
let shown = rows;
let current = -1;
let height = 0;
let openRow = () => {};
let painting = 0;

/** Show *found* instead of what was shown; the current row stays current if it is among them. */
function showRows(found) {
  const kept = shown[current];
  shown = found;
  current = kept === undefined ? -1 : shown.indexOf(kept);
  for (const element of mounted.values()) element.remove();
  mounted.clear();
  byId("nothing").hidden = shown.length > 0;
  const some = shown.length === rows.length ? "" : ` of ${number.format(rows.length)}`;
  byId("count").textContent = `${number.format(shown.length)}${some} ${rows.length === 1 ? "job" : "jobs"}`;
  layOut();
}

/** Ask the style how high a row is, and give the list the height of them all. */
function layOut() {
  const probe = make("li", { class: "row", "aria-hidden": "true" });
  list.append(probe);
  height = probe.offsetHeight;
  probe.remove();
  list.style.height = `${shown.length * height}px`;
  for (const [place, element] of mounted) element.style.top = `${place * height}px`;
  paint();
}

function paint() {
  painting = 0;
  const top = list.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(-top / height) - OVERSCAN);
  const end = Math.min(shown.length, Math.ceil((innerHeight - top) / height) + OVERSCAN);
  for (const [place, element] of mounted) {
    // Whoever has the focus stays, or the keyboard would start from the top of the page.
    if ((place < first || place >= end) && !element.contains(document.activeElement)) {
      element.remove();
      mounted.delete(place);
    }
  }
  for (let place = first; place < end; place += 1) if (!mounted.has(place)) mount(place);
}

function mount(place) {
  const row = shown[place];
  const element = make(
    "li",
    {
      class: "row",
      tabindex: place === Math.max(current, 0) ? "0" : "-1",
      "aria-setsize": shown.length,
      "aria-posinset": place + 1,
      "aria-label": `${row.key}, ${row.status}`,
      "aria-current": place === current ? "true" : null,
      data: { status: row.status, place },
    },
    card(row, (picture) => openRow(place, picture)),
  );
  element.style.top = `${place * height}px`;
  mounted.set(place, element);
  // In the order of the rows, for whoever goes through them one by one.
  const later = [...mounted.keys()].filter((other) => other > place).sort((one, other) => one - other)[0];
  list.insertBefore(element, later === undefined ? null : mounted.get(later));
}

/** Make the row at *place* the current one, wherever it is. */
function makeCurrent(place) {
  for (const each of [current, place]) {
    const element = mounted.get(each);
    element?.setAttribute("tabindex", each === place ? "0" : "-1");
    if (each === place) element?.setAttribute("aria-current", "true");
    else element?.removeAttribute("aria-current");
  }
  current = place;
}

/** Go to the row at *place*: bring it into sight and give it the focus. */
function goTo(place) {
  if (shown.length === 0) return;
  makeCurrent(Math.min(Math.max(place, 0), shown.length - 1));
  const filters = byId("filters");
  const covered = getComputedStyle(filters).position === "sticky" ? filters.offsetHeight : 0;
  const top = list.getBoundingClientRect().top + current * height;
  if (top < covered) scrollBy(0, top - covered - 4);
  else if (top + height > innerHeight) scrollBy(0, top + height - innerHeight);
  document.activeElement?.blur();
  paint();
  mounted.get(current)?.focus({ preventScroll: true });
}

function startList() {
  addEventListener("scroll", () => (painting ||= requestAnimationFrame(paint)), { passive: true });
  addEventListener("resize", layOut);
  // What is above the list may grow and shrink.
  new ResizeObserver(paint).observe(document.body);
  list.addEventListener("focusin", (event) => {
    // Without scrolling: the pointer may be on its way, and its target must stay.
    const place = Number(event.target.closest(".row")?.dataset.place ?? -1);
    if (place >= 0 && place !== current) makeCurrent(place);
  });
}
