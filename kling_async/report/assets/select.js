// Which rows are shown, and in which order: decided by what the filters say, and kept in the address of the page.

const STATUSES = ["succeeded", "failed", "running", "unsaved", "waiting", "skipped"];
const by = (value, otherwise) => (one, other) => (value(other) ?? otherwise) - (value(one) ?? otherwise);
const ORDERS = {
  manifest: ["as asked", null],
  newest: ["newest first", by((row) => row.finished ?? row.started, 0)],
  slowest: ["slowest first", by((row) => row.seconds, -1)],
  dearest: ["most units first", by((row) => row.units, -1)],
  key: ["by key", (one, other) => one.key.localeCompare(other.key, "en", { numeric: true })],
  status: ["what failed first", by((row) => (row.status === "succeeded" ? 0 : row.status === "failed" ? 2 : 1), 0)],
};
const FIELDS = { code: codeOf, model: (row) => row.model ?? "", account: (row) => row.account ?? "" };

const chosen = { q: "", status: "", code: "", model: "", account: "", sort: "manifest" };

/** The rows that match what is chosen, in its order. */
function selectRows() {
  const words = chosen.q.toLowerCase().split(/\s+/).filter(Boolean);
  const fields = Object.entries(FIELDS).filter(([name]) => chosen[name] !== "");
  const found = rows.filter(
    (row) =>
      (chosen.status === "" || row.status === chosen.status) &&
      fields.every(([name, value]) => value(row) === chosen[name]) &&
      (words.length === 0 || words.every((word) => wordsOf(row).includes(word))),
  );
  const order = ORDERS[chosen.sort][1];
  return order ? found.sort(order) : found;
}

function countBy(value) {
  const counts = new Map();
  for (const row of rows) {
    const found = value(row);
    if (found !== "") counts.set(found, (counts.get(found) ?? 0) + 1);
  }
  return counts;
}

/** Fill the filters with what there is to choose from. */
function offerChoices() {
  const counts = countBy((row) => row.status);
  const statuses = [["", "All", rows.length]];
  for (const name of STATUSES) if (counts.has(name)) statuses.push([name, name, counts.get(name)]);
  for (const [value, name, count] of statuses) {
    const radio = make("input", { type: "radio", name: "status", value });
    byId("statuses").append(make("label", {}, radio, `${name[0].toUpperCase()}${name.slice(1)} ${number.format(count)}`));
  }
  for (const [name, value] of Object.entries(FIELDS)) {
    const found = [...countBy(value)].sort((one, other) => other[1] - one[1]);
    const select = byId(name);
    select.append(make("option", { value: "" }, "any"));
    for (const [text, count] of found) select.append(make("option", { value: text }, `${text} (${number.format(count)})`));
    // One code says something, one model or account does not.
    select.parentElement.hidden = found.length < (name === "code" ? 1 : 2);
  }
  for (const [value, [name]] of Object.entries(ORDERS)) byId("sort").append(make("option", { value }, name));
}

/** Take what the page's address says, as far as it can be chosen here. */
function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(chosen)) if (said.has(name)) chosen[name] = said.get(name);
  showChoices();
}

function writeAddress() {
  const said = Object.entries(chosen).filter(([name, value]) => value !== (name === "sort" ? "manifest" : ""));
  history.replaceState(null, "", `#${new URLSearchParams(said)}`);
}

function showChoices() {
  const { elements } = byId("filters");
  // What is not offered cannot be chosen.
  if (![...elements.status].some((radio) => radio.value === chosen.status)) chosen.status = "";
  for (const radio of elements.status) radio.checked = radio.value === chosen.status;
  for (const name of ["q", "code", "model", "account", "sort"]) {
    elements[name].value = chosen[name];
    if (elements[name].value === chosen[name]) continue;
    elements[name].value = chosen[name] = name === "sort" ? "manifest" : "";
  }
}

function readChoices() {
  for (const name of Object.keys(chosen)) chosen[name] = byId("filters").elements[name].value;
}
