// How the parts hang together.

function refresh() {
  writeAddress();
  showRows(selectRows());
}

/** Choose *value* for the filter *name*, as if a person did. */
function choose(name, value) {
  chosen[name] = value;
  showChoices();
  refresh();
}

/** Lead from a task of the timeline to its row. */
function goToTask(event) {
  const named = event.target.closest("[data-key]")?.dataset.key;
  if (named === undefined) return;
  const key = named.replace(/ \(part \d+ of \d+\)$/, "");
  if (!shown.some((row) => row.key === key)) {
    for (const name of Object.keys(chosen)) if (name !== "sort") chosen[name] = "";
    showChoices();
    refresh();
  }
  goTo(shown.findIndex((row) => row.key === key));
}

openRow = openViewer;
offerChoices();
readAddress();
startList();
startViewer();
startKeys();
showRows(selectRows());

byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("input", () => {
  readChoices();
  refresh();
});
byId("clear").addEventListener("click", () => {
  for (const name of Object.keys(chosen)) if (name !== "sort") chosen[name] = "";
  showChoices();
  refresh();
});
addEventListener("hashchange", () => {
  readAddress();
  showRows(selectRows());
});
document.querySelector(".drawing")?.addEventListener("click", goToTask);
document.documentElement.dataset.ready = "yes";
