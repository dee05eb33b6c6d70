/** Script of the live page: what changes the cache, each after a confirmation. */
export const ACTIONS_SCRIPT: string = String.raw`
let token = sessionStorage.getItem("kvtier-token") || "";
const withToken = (headers) => token === "" ? headers : { ...headers, authorization: "Bearer " + token };

const confirmed = (text) => {
  const dialog = $("confirm");
  setText($("confirm-text"), text);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
};

const act = async (name, body, question, describe) => {
  const result = $("result");
  if (!await confirmed(question)) return setText(result, "Cancelled.");
  setText(result, "Working …");
  try {
    const response = await fetch("actions/" + name, {
      method: "POST", headers: withToken({ "content-type": "application/json" }), body: JSON.stringify(body),
    });
    const answer = await response.json();
    setText(result, response.ok ? describe(answer) : "Failed: " + answer.error);
  } catch (error) {
    setText(result, "Failed: " + error.message);
  }
};
const onSubmit = (id, run) => $(id).addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
const told = (text) => setText($("result"), text);

onSubmit("forget", () => {
  const by = $("forget-by").value;
  const name = $("forget-name").value;
  const what = (by === "salt" ? "the cache salt " : "the model ") + JSON.stringify(name);
  act("forget", { [by]: name }, "Remove all objects of " + what + " from every tier? They have to be computed again.", (report) => {
    const adapters = report.adapters.map((each) => each.type + " " + each.id + ": " + count(each.objects) + (each.complete ? "" : ", " + each.problem));
    return "Removed " + [count(report.l1.objects) + " objects from L1", ...adapters].join("; ") + ".";
  });
});

const limit = (id) => {
  const text = $(id).value.trim();
  if (text === "") return undefined;
  const value = Number(text);
  return Number.isFinite(value) && value >= 0 ? Math.round(value * 2 ** 20) : NaN;
};
onSubmit("quota", () => {
  const quota = { l1Bytes: limit("quota-l1"), l2Bytes: limit("quota-l2") };
  if (Object.values(quota).some(Number.isNaN)) return told("A limit has to be a number of MiB, at least 0.");
  const words = (value) => value === undefined ? "no limit" : bytes(value);
  const salt = $("quota-salt").value;
  act("quota", { salt, quota }, "Limit " + JSON.stringify(salt) + " to " + words(quota.l1Bytes) + " in L1 and " + words(quota.l2Bytes) +
    " in each adapter? Objects beyond that are evicted at once.", () => "The quota is set.");
});
$("quota-remove").addEventListener("click", () => {
  const salt = $("quota-salt").value;
  act("quota", { salt, quota: null }, "Remove the quota of " + JSON.stringify(salt) + ", so that the default applies?",
    ({ isDeleted }) => isDeleted ? "The quota is removed." : "The salt had no quota of its own.");
});
onSubmit("add", () => {
  let config;
  try {
    config = JSON.parse($("add-config").value);
  } catch {
    return told("The configuration is not valid JSON.");
  }
  act("add-adapter", { config }, "Add an adapter of the type " + JSON.stringify(config && config.type) + "?",
    ({ id }) => "The adapter has the id " + id + ".");
});
onSubmit("remove", () => {
  const { value, selectedOptions } = $("remove-id");
  if (value === "") return told("There is no adapter to remove.");
  const mode = $("remove-mode").value;
  act("remove-adapter", { id: Number(value), mode }, "Remove " + selectedOptions[0].textContent + " with mode " + mode + "? Its objects stay in its storage.",
    ({ copiedObjects }) => "The adapter is removed" + (copiedObjects > 0 ? ", after " + count(copiedObjects) + " objects were copied." : "."));
});

const showActions = (canAct) => {
  $("actions").hidden = !canAct;
  $("actions-help").hidden = canAct;
};
`;
