// One picture in full size, with everything that is known of its job; left and right lead through all that is shown.

const viewer = byId("viewer");
const canvas = byId("canvas");
let openPlace = 0;
let openPicture = 0;

function openViewer(place, picture = 0) {
  openPlace = place;
  openPicture = picture;
  if (!viewer.open) viewer.showModal();
  showPicture();
}

function showPicture() {
  const row = shown[openPlace];
  const pictures = picturesOf(row);
  const picture = pictures[openPicture];
  canvas.classList.remove("actual");
  canvas.replaceChildren(large(row, picture));
  const strip = pictures.map((each, at) => stripItem(row, each, at));
  byId("strip").replaceChildren(...strip);
  strip[openPicture]?.scrollIntoView({ block: "nearest", inline: "nearest" });
  const what = picture ? ` · ${picture.label}` : "";
  byId("caption").textContent = `job ${number.format(openPlace + 1)} of ${number.format(shown.length)}${what}`;
  byId("about").replaceChildren(...about(row, picture));
  byId("previous").disabled = openPlace === 0 && openPicture === 0;
  byId("next").disabled = openPlace === shown.length - 1 && openPicture >= pictures.length - 1;
}

function large(row, picture) {
  if (picture?.kind === "trouble") return trouble(row);
  if (!picture?.href) return make("span", { class: "text" }, picture ? wordsFor(picture) : "no pictures");
  const image = make("img", { src: picture.href, alt: `${picture.label} of ${row.key}`, onclick: zoom });
  // What only Pillow can decode is shown as small as it was made.
  image.addEventListener("error", () => picture.thumbnail && image.setAttribute("src", picture.thumbnail), { once: true });
  return image;
}

function stripItem(row, picture, at) {
  const item = shot(row, picture, () => openViewer(openPlace, at));
  const holder = item.tagName === "BUTTON" ? item : make("button", { type: "button", class: "shot", onclick: () => openViewer(openPlace, at) }, item);
  holder.style.aspectRatio = "auto";
  holder.append(picture.label);
  if (at === openPicture) holder.setAttribute("aria-current", "true");
  return holder;
}

function zoom() {
  canvas.classList.toggle("actual");
}

function about(row, picture) {
  const job = row.job ?? {};
  const file = picture?.href ? make("a", { href: picture.href, target: "_blank", rel: "noopener" }, fileName(picture.text)) : null;
  const details = [
    ["Picture", file ?? picture?.address ?? null],
    ["Seconds", row.seconds?.toFixed(1)],
    ["Units", row.units === undefined ? null : number.format(row.units)],
    ["Model", row.model],
    ["Pictures", job.n],
    ["Ratio", job.aspect_ratio],
    ["Account", row.account],
    ["Attempts", row.attempts || null],
    ["Task", row.task_id && make("span", { class: "id" }, row.task_id)],
    ["External id", row.external_task_id && make("span", { class: "id" }, row.external_task_id)],
    ["Began", row.started && moment(row.started)],
    ["Ended", row.finished && moment(row.finished)],
    ["Row", row.number],
    ["Made to fit", row.fitted?.join("; ")],
    ["Warnings", row.warnings?.join("; ")],
    ["Changed", row.changed && "the manifest's row is another one since"],
  ];
  return [
    make("h2", {}, row.key),
    statusOf(row),
    job.prompt ? make("p", { class: "prompt" }, job.prompt) : null,
    job.negative_prompt ? make("p", { class: "negative" }, `not: ${job.negative_prompt}`) : null,
    copyButtons(row),
    make(
      "dl",
      { class: "details" },
      ...details
        .filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false)
        .map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    ),
  ].filter((element) => element !== null);
}

/** Go *by* pictures, over into the neighbouring rows. */
function step(by) {
  const last = Math.max(picturesOf(shown[openPlace]).length - 1, 0);
  const target = openPicture + by;
  if (target >= 0 && target <= last) openViewer(openPlace, target);
  else if (by > 0 && openPlace < shown.length - 1) openViewer(openPlace + 1, 0);
  else if (by < 0 && openPlace > 0) {
    openViewer(openPlace - 1, Math.max(picturesOf(shown[openPlace - 1]).length - 1, 0));
  }
}

/** Go *by* rows. */
function stepRow(by) {
  const target = openPlace + by;
  if (target >= 0 && target < shown.length) openViewer(target, 0);
}

function startViewer() {
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("close", () => {
    canvas.replaceChildren();
    goTo(openPlace);
  });
}
