// The page of the shop: sends orders, follows them live, and remembers their addresses in the browser.

const AT = { accepted: 0, waiting: 1, submitted: 1, processing: 2, saving: 2, succeeded: 3, failed: 2 };
const SAID = {
  accepted: "We have your order.",
  waiting: "Waiting for a free place in the studio.",
  submitted: "In the queue of the studio.",
  processing: "The studio is at work.",
  saving: "Fetching the pictures.",
  succeeded: "Done.",
};
const form = document.getElementById("order");
const orders = document.getElementById("orders");
const problem = document.getElementById("problem");

// Orders that this browser knows, newest first: [{url, what, begun}].
const known = JSON.parse(localStorage.getItem("orders") ?? "[]");

function remember() {
  localStorage.setItem("orders", JSON.stringify(known.slice(0, 20)));
}

function card(order) {
  const item = document.getElementById("card").content.firstElementChild.cloneNode(true);
  item.querySelector(".what").textContent = order.what;
  orders.prepend(item);
  return item;
}

function show(item, order, state) {
  const at = AT[state.status] ?? 2;
  item.dataset.status = state.status;
  item.classList.toggle("done", state.status === "succeeded");
  item.classList.toggle("failed", state.status === "failed");
  item.querySelectorAll(".steps li").forEach((step, number) => {
    step.classList.toggle("reached", number <= at);
    step.classList.toggle("now", number === at && !state.ended);
  });
  item.querySelector(".status").textContent =
    SAID[state.status] ?? state.error?.message ?? state.reason ?? "This did not work.";
  if (state.ended) {
    order.seconds ??= Math.round((Date.now() - order.begun) / 1000);
    remember();
  }
  tick(item, order);
  if (Array.isArray(state.pictures)) {
    item.querySelector(".pictures").replaceChildren(
      ...state.pictures.map((url, number) => {
        const link = Object.assign(document.createElement("a"), { href: url, target: "_blank" });
        link.append(Object.assign(new Image(), { src: url, alt: `${order.what}, picture ${number + 1}` }));
        return link;
      }),
    );
  }
}

function tick(item, order) {
  const seconds = order.seconds ?? Math.round((Date.now() - order.begun) / 1000);
  item.querySelector("time").textContent = seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}

// What is asked for once tells everything, also what was missed; the stream tells what comes.
async function ask(item, order) {
  const reply = await fetch(order.url);
  if (reply.status === 404) {
    known.splice(known.indexOf(order), 1);
    remember();
    item.remove();
    return true;
  }
  if (!reply.ok) throw new Error(`${reply.status}`);
  const state = await reply.json();
  show(item, order, state);
  return state.ended;
}

function follow(item, order) {
  const timer = setInterval(() => tick(item, order), 1000);
  const stream = new EventSource(`/live/?task=${encodeURIComponent(order.url.split("/").pop())}`);
  const stop = () => {
    clearInterval(timer);
    stream.close();
  };
  const look = () => ask(item, order).then((ended) => ended && stop(), () => {});
  stream.addEventListener("open", look);
  stream.addEventListener("task", (event) => {
    const state = JSON.parse(event.data);
    if (state.ended) look();
    else show(item, order, state);
  });
  stream.addEventListener("end", () => {
    stream.close();
    look();
  });
}

async function send(event) {
  event.preventDefault();
  problem.hidden = true;
  const button = form.querySelector("button");
  const fields = new FormData(form);
  const photo = fields.get("photo");
  if (!photo?.size) fields.delete("photo");
  const what = photo?.size ? photo.name : form.querySelector(`[name=sample]:checked ~ img`).alt;
  const scene = form.querySelector("[name=scene]:checked ~ span").textContent;
  button.disabled = true;
  try {
    const reply = await fetch("/orders", { method: "POST", body: fields });
    const said = await reply.json().catch(() => ({}));
    if (reply.status !== 202) throw new Error(said.detail ?? `The shop answered ${reply.status}.`);
    const order = {
      url: reply.headers.get("Location"),
      what: fields.get("scene") ? `${what}, ${scene.toLowerCase()}` : what,
      begun: Date.now(),
    };
    known.unshift(order);
    remember();
    const item = card(order);
    show(item, order, said);
    follow(item, order);
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  } finally {
    button.disabled = false;
  }
}

function preview() {
  const [photo] = form.photo.files;
  const picture = document.getElementById("preview");
  if (picture.src) URL.revokeObjectURL(picture.src);
  picture.hidden = !photo;
  document.getElementById("hint").hidden = Boolean(photo);
  form.classList.toggle("has-photo", Boolean(photo));
  if (photo) picture.src = URL.createObjectURL(photo);
}

const drop = document.getElementById("drop");
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  form.photo.files = event.dataTransfer.files;
  preview();
});
form.photo.addEventListener("change", preview);
form.querySelectorAll("[name=sample]").forEach((one) =>
  one.addEventListener("click", () => {
    form.photo.value = "";
    preview();
  }),
);
form.addEventListener("submit", send);

for (const order of [...known].reverse()) {
  const item = card(order);
  ask(item, order).then((ended) => ended || follow(item, order), () => follow(item, order));
}
