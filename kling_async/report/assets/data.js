// The run's data, and how the page writes it. Texts of others become text nodes and attributes, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const rows = data.rows;

const byId = (id) => document.getElementById(id);

/** Make an element; `null` properties and children are left out, `on…` are listeners, `data` is its dataset. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Everything of a row to look at: what went wrong, its results, then what they were made from. */
function picturesOf(row) {
  const job = row.job ?? {};
  const subjects = job.subject_images ?? [];
  const named = (kind, label, text) => {
    const places = kind === "reference" ? data.references : data.pictures;
    return { kind, label, text, ...places[text] };
  };
  return [
    ...(row.error ? [{ kind: "trouble", label: "error", text: codeOf(row) }] : []),
    ...(row.files ?? []).map((text, at) => named("result", `result ${at + 1}`, text)),
    ...(row.watermarked ?? []).map((text, at) => named("watermarked", `watermarked ${at + 1}`, text)),
    ...subjects.map((text, at) => named("reference", subjects.length > 1 ? `subject ${at + 1}` : "subject", text)),
    ...(job.scene_image ? [named("reference", "scene", job.scene_image)] : []),
    ...(job.style_image ? [named("reference", "style", job.style_image)] : []),
  ];
}

const fileName = (text) => text.split("/").at(-1) || text;
const number = new Intl.NumberFormat("en");

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 3600
    ? `${Math.floor(whole / 60)} min ${whole % 60} s`
    : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const moment = (seconds) => `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;

/** What an error is filtered by: the service's code, else the kind. */
const codeOf = (row) => (row.error ? String(row.error.code ?? row.error.type) : "");

/** Everything of a row that can be searched for, in lower case; made once. */
const searched = new Map();
function wordsOf(row) {
  let words = searched.get(row);
  if (words === undefined) {
    const { job = {}, error = {} } = row;
    const texts = [
      row.key, row.task_id, row.external_task_id, row.model, row.account, job.prompt, job.negative_prompt,
      job.scene_image, job.style_image, error.code, error.type, error.message, error.request_id,
    ];
    words = [...texts, ...(job.subject_images ?? []), ...(row.files ?? [])].join("\n").toLowerCase();
    searched.set(row, words);
  }
  return words;
}

let silence;
/** Tell something in passing, to eyes and to screen readers. */
function say(text) {
  const toast = byId("said");
  // What lies under an open dialog is neither seen nor heard.
  (document.querySelector("dialog[open]") ?? document.body).append(toast);
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(silence);
  silence = setTimeout(() => toast.classList.remove("shown"), 2500);
}
