// Shows /openapi.json to people. Every text goes in as text, never as HTML.

const METHODS = ["get", "post", "put", "delete", "options"];
const DEEPEST = 4; // levels of fields within fields

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Text in which `words` stand as code.
function sentence(text) {
  const parts = text.split("`").map((part, n) => (n % 2 ? element("code", {}, part) : part));
  return element("p", {}, ...parts);
}

function resolver(whole) {
  return (value) => {
    let found = value ?? {};
    while (found.$ref) {
      const { $ref, ...beside } = found;
      found = { ...$ref.slice(2).split("/").reduce((at, name) => at[name], whole), ...beside };
    }
    return found;
  };
}

function kind(schema, resolve) {
  const its = resolve(schema);
  const options = its.anyOf ?? its.oneOf;
  if (options) return [...new Set(options.map((option) => kind(option, resolve)))].join(" | ");
  if ("const" in its) return JSON.stringify(its.const);
  if (its.enum) return its.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (its.type === "array") return `array of ${its.items ? kind(its.items, resolve) : "anything"}`;
  return its.format ?? its.type ?? "anything";
}

function limits(schema) {
  const said = [
    ["default", (value) => (value === null || value === "" ? "" : `default ${JSON.stringify(value)}`)],
    ["minimum", (value) => `at least ${value}`],
    ["maximum", (value) => `at most ${value}`],
    ["exclusiveMinimum", (value) => `more than ${value}`],
    ["maxLength", (value) => `at most ${value} characters`],
    ["pattern", (value) => `matches ${value}`],
  ];
  const options = [schema, ...(schema.anyOf ?? [])];
  const found = said.flatMap(([name, words]) => options.filter((one) => name in one).map((one) => words(one[name])));
  return [...new Set(found.filter(Boolean))].join(", ");
}

function row(name, required, schema, resolve, description) {
  const about = element("td", {}, element("code", {}, kind(schema, resolve)));
  const more = limits(resolve(schema));
  if (more) about.append(" ", element("span", { class: "quiet" }, more));
  const said = description ?? resolve(schema).description;
  if (said) about.append(sentence(said));
  const cell = element("td", {}, element("code", {}, name), required ? " (needed)" : "");
  return element("tr", {}, cell, about);
}

// Fields of an object, those of objects within it below it: a.b, a[].b.
function fields(schema, resolve, prefix = "", depth = 0) {
  const its = resolve(schema);
  if (depth > DEEPEST) return [];
  if (its.type === "array" && its.items) return fields(its.items, resolve, `${prefix}[]`, depth + 1);
  const options = its.anyOf ?? its.oneOf;
  if (options) return options.flatMap((option) => fields(option, resolve, prefix, depth + 1));
  return Object.entries(its.properties ?? {}).flatMap(([name, inner]) => {
    const path = prefix ? `${prefix}.${name}` : name;
    return [row(path, its.required?.includes(name), inner, resolve), ...fields(inner, resolve, path, depth + 1)];
  });
}

function table(title, rows) {
  return rows.length ? [element("h3", {}, title), element("table", {}, element("tbody", {}, ...rows))] : [];
}

function content(title, what, resolve) {
  return Object.entries(what?.content ?? {}).flatMap(([media, { schema }]) => {
    const rows = fields(schema, resolve);
    const heading = `${title}: ${media}${rows.length ? "" : `, ${kind(schema, resolve)}`}`;
    return rows.length ? table(heading, rows) : [element("h3", {}, heading)];
  });
}

function callers(operation) {
  const names = (operation.security ?? []).map((one) => Object.keys(one).join(" with "));
  if (!names.length) return element("p", { class: "quiet" }, "Open to everyone.");
  const listed = names.flatMap((name, n) => [n ? " or " : "", element("code", {}, name)]);
  return element("p", { class: "quiet" }, "Opened by ", ...listed, ".");
}

function answers(operation, resolve) {
  const rows = Object.entries(operation.responses).map(([status, response]) => {
    const its = resolve(response);
    const cell = element("td", {}, sentence(its.description));
    for (const [name, header] of Object.entries(its.headers ?? {})) {
      cell.append(sentence(`\`${name}\`: ${header.description}`));
    }
    return element("tr", {}, element("td", {}, element("code", {}, status)), cell);
  });
  return table("Answers", rows);
}

function shown(path, method, operation, resolve) {
  const name = element("code", {}, element("span", { class: "method" }, method.toUpperCase()), ` ${path}`);
  const card = element("details", { id: operation.operationId }, element("summary", {}, name, ` ${operation.summary}`));
  if (operation.description) card.append(sentence(operation.description));
  const parameters = (operation.parameters ?? []).map((one) =>
    row(`${one.name}, in the ${one.in}`, one.required, one.schema, resolve, one.description),
  );
  const done = Object.entries(operation.responses).filter(([status]) => status.startsWith("2"));
  card.append(
    callers(operation),
    ...table("Parameters", parameters),
    ...content("Body", operation.requestBody, resolve),
    ...answers(operation, resolve),
    ...done.flatMap(([status, response]) => content(`Answer ${status}`, resolve(response), resolve)),
  );
  return card;
}

function groups(whole) {
  const resolve = resolver(whole);
  return whole.tags.map(({ name, description }) => {
    const cards = Object.entries(whole.paths).flatMap(([path, methods]) =>
      METHODS.filter((method) => methods[method]?.tags.includes(name)).map((method) =>
        shown(path, method, methods[method], resolve),
      ),
    );
    const about = element("p", { class: "about" }, ...sentence(description).childNodes);
    return cards.length ? element("section", {}, element("h2", {}, name), about, ...cards) : "";
  });
}

function find(text) {
  const wanted = text.trim().toLowerCase();
  for (const section of document.querySelectorAll("section")) {
    const cards = [...section.querySelectorAll("details")];
    for (const card of cards) card.hidden = !card.firstChild.textContent.toLowerCase().includes(wanted);
    section.hidden = cards.every((card) => card.hidden);
  }
}

function openNamed() {
  const card = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (card?.tagName === "DETAILS") {
    card.open = true;
    card.scrollIntoView();
  }
}

const place = document.getElementById("groups");
try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`/openapi.json answers ${response.status}`);
  place.replaceChildren(...groups(await response.json()));
  document.getElementById("find").addEventListener("input", (event) => find(event.target.value));
  addEventListener("hashchange", openNamed);
  openNamed();
} catch (error) {
  place.replaceChildren(element("p", { role: "alert" }, `The description cannot be shown: ${error.message}`));
} finally {
  place.removeAttribute("aria-busy");
}
