// One row as elements: what it was made from, what came out, and what is known of it.

/** A picture that opens in full size, or words where there is none to show. */
function shot(row, picture, open, { whole = false } = {}) {
  const alt = `${picture.label} of ${row.key}: ${fileName(picture.text)}`;
  if (!picture.href) return make("span", { class: "text", title: picture.text }, wordsFor(picture));
  const source = whole ? picture.href : (picture.thumbnail ?? picture.href);
  const image = make("img", { src: source, alt, loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(make("span", { class: "text" }, "cannot be shown")));
  const button = make("button", { type: "button", class: "shot", title: alt, onclick: open }, image);
  const ratio = /^(\d+):(\d+)$/.exec((picture.kind !== "reference" && row.job?.aspect_ratio) || "1:1");
  if (picture.kind !== "reference" && ratio) button.style.aspectRatio = `${ratio[1]} / ${ratio[2]}`;
  return button;
}

function wordsFor(picture) {
  if (picture.address) return picture.address;
  return picture.missing ? `${fileName(picture.text)} is not there any more` : picture.text;
}

function statusOf(row) {
  return make("span", { class: "status", data: { status: row.status } }, row.status);
}

/** What went wrong and what to do about it. */
function trouble(row) {
  const { code, type, message, meaning, remedy, request_id } = row.error;
  return make(
    "div",
    { class: "trouble" },
    make("h4", {}, code ? `${code} ${type}` : type || "Failed"),
    make("p", {}, message || meaning || "no reason was given"),
    message && meaning ? make("p", { class: "quiet" }, meaning) : null,
    remedy ? make("p", { class: "remedy" }, `What to do: ${remedy}`) : null,
    request_id ? make("p", { class: "id" }, `request ${request_id}`) : null,
  );
}

function factsOf(row) {
  const job = row.job ?? {};
  return [
    row.seconds === undefined ? null : duration(row.seconds),
    row.units === undefined ? null : `${number.format(row.units)} units`,
    job.aspect_ratio ?? null,
    row.model ?? null,
    row.attempts > 1 ? `${row.attempts} attempts` : null,
  ].filter(Boolean);
}

/** What stands in place of results that are not there. */
const WORDS = {
  running: "under way",
  unsaved: "made, not saved yet: kling-async fetch saves it",
  waiting: "to be tried again",
};

function resultsOf(row, pictures, open) {
  const shots = pictures
    .map((picture, place) => [picture, place])
    .filter(([picture]) => picture.kind === "result")
    .map(([picture, place]) => shot(row, picture, () => open(place)));
  if (row.error) shots.unshift(trouble(row));
  if (shots.length === 0) {
    const words = WORDS[row.status] ?? "no pictures were saved";
    shots.push(make("span", { class: "text" }, words));
  }
  return make("div", { class: "results" }, ...shots);
}

/** The element of *row*; *open* shows the picture at a place of its list in full size. */
function card(row, open) {
  const pictures = picturesOf(row);
  const references = pictures
    .map((picture, place) => [picture, place])
    .filter(([picture]) => picture.kind === "reference")
    .map(([picture, place]) =>
      make("figure", { class: "reference" }, shot(row, picture, () => open(place)), make("figcaption", {}, picture.label)),
    );
  const job = row.job ?? {};
  const head = make("div", { class: "head" }, make("h3", { title: row.key }, row.key), statusOf(row));
  const words = make(
    "div",
    { class: "words" },
    job.prompt ? make("p", { class: "prompt", title: job.prompt }, job.prompt) : null,
    job.negative_prompt ? make("p", { class: "negative", title: job.negative_prompt }, `not: ${job.negative_prompt}`) : null,
    make(
      "p",
      { class: "facts" },
      factsOf(row).join(" · "),
      row.task_id ? make("span", {}, make("br"), "task ", make("span", { class: "id" }, row.task_id)) : null,
    ),
    copyButtons(row),
  );
  const results = resultsOf(row, pictures, open);
  return make(
    "div", { class: "card" }, head, results, make("div", { class: "references" }, ...references), words,
  );
}
