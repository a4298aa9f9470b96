// A row as something to run again: a line of a manifest, a program, a request. Pictures go by their paths, and a key is
// always read from the environment.

const isAddress = (text) => text.includes("://");
const isElided = (text) => text.startsWith("<base64 of ");

function asLine(row) {
  return JSON.stringify({ key: row.key, ...row.job });
}

/** A JSON value as Python writes it. */
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, each]) => `${literal(name)}: ${literal(each)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

function asPython(row) {
  const fields = Object.entries(row.job).map(([name, value]) => `            ${name}=${literal(value)},`);
  return [
    "import asyncio",
    "",
    "from kling_async import Kling",
    "",
    "",
    "async def main() -> None:",
    "    async with Kling() as kling:  # reads KLING_API_KEY",
    "        task = await kling.images.multi_image.run(",
    ...fields,
    "        )",
    '        print([await image.save("out") for image in task.images])',
    "",
    "",
    "asyncio.run(main())",
    "",
  ].join("\n");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
/** A text inside a here-document whose end word is not quoted. */
const inDocument = (text) => text.replace(/[\\$`]/g, "\\$&");

/** The request's body; files are read and encoded by the shell. */
function bodyOf(job) {
  const { subject_images = [], watermark, extra = {}, ...rest } = job;
  const body = { ...rest, subject_image_list: subject_images.map((text) => ({ subject_image: text })), ...extra };
  if (watermark !== undefined) body.watermark_info = { enabled: watermark };
  const files = new Map();
  for (const text of [...subject_images, job.scene_image, job.style_image]) {
    if (text !== undefined && !isAddress(text) && !isElided(text)) {
      files.set(inDocument(JSON.stringify(text)), `"$(base64 < ${quoted(text)} | tr -d '\\n')"`);
    }
  }
  return { body, files };
}

function asCurl(row) {
  const { body, files } = bodyOf(row.job);
  const pictures = new Set(["subject_image", "scene_image", "style_image"]);
  const lines = inDocument(JSON.stringify(body, null, 2)).split("\n").map((line) => {
    const [, start, name, value, end] = /^(\s*"(\w+)": )(".*")(,?)$/.exec(line) ?? [];
    return pictures.has(name) && files.has(value) ? `${start}${files.get(value)}${end}` : line;
  });
  const base = data.run.emulated ? "KLING_BASE_URL:?the address of the emulator" : `KLING_BASE_URL:-${data.run.base_url}`;
  return [
    `base="\${${base}}"; base="\${base%/}"; base="\${base%/v1}"`,
    `curl "$base${data.run.path}" \\`,
    '  -H "Authorization: Bearer $KLING_API_KEY" -H "Content-Type: application/json" \\',
    "  --data-binary @- <<JSON",
    ...lines,
    "JSON",
    "",
  ].join("\n");
}

const FORMS = { Python: asPython, curl: asCurl, JSONL: asLine };

async function copyAs(form, row) {
  const text = FORMS[form](row);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Some browsers give pages of files no clipboard; the older way still works.
    const area = make("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(`Copied ${row.key} as ${form}`);
}

/** The buttons of a row; none if nobody knows what it asked for. */
function copyButtons(row) {
  if (!row.job) return null;
  const buttons = Object.keys(FORMS).map((form) =>
    make("button", { type: "button", "aria-label": `Copy ${row.key} as ${form}`, onclick: () => copyAs(form, row) }, form),
  );
  return make("div", { class: "copies" }, "Copy as", ...buttons);
}
