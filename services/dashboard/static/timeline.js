// What became of a run, out of its facts. Pure: rows in, milestones out; no DOM, no words.

const TRIGGER = "feedback.evaluate";
const ENDS = ["report.ready", "retrain.requested"];
// Facts of one transaction have the same time: then this is their order.
const ORDER = [
  "triggered",
  "start",
  "evaluated",
  "retrain",
  "planned",
  "built",
  "outcome",
  "post",
  "failure",
];

/** A milestone's kind, or null for a fact that says nothing to a person. */
function kindOf(step) {
  if (step.what === "dead") return "failure";
  if (step.what === "posted") return "post";
  if (step.what === "emitted") {
    if (step.type === TRIGGER) return "triggered";
    if (step.type === "retrain.requested") return "retrain";
    if (step.type === "generation.built") return "built";
    if (step.type === "retrain.completed") return "outcome";
    if (step.type === "generation.requested") return "generation";
    if (step.type === "rollback.requested") return "rollback";
    if (ENDS.includes(step.type) || step.type === "loop.failed") return null; // others tell of them
    return "other";
  }
  if (step.type === TRIGGER && step.service === "analyzer") return "evaluated";
  return step.type === "retrain.requested" && step.service === "embedder" ? "planned" : null;
}

/**
 * The milestones of a run in the order they happened.
 *
 * Each has `id`, `kind`, `at` (milliseconds), `after` (milliseconds since the one before, null for the
 * first) and its `step`.
 */
export function milestones(run, steps) {
  const found = [];
  for (const step of steps) {
    const kind = kindOf(step);
    if (kind) found.push({ id: step.id, kind, at: Date.parse(step.at), step });
  }
  if (!found.some((each) => each.kind === "triggered")) {
    // Its event is older than what is kept.
    found.push({ id: "start", kind: "triggered", at: Date.parse(run.started_at), step: null });
  }
  const built = steps.some((step) => step.what === "emitted" && step.type === "generation.built");
  const ended = steps.some((step) => step.what === "emitted" && step.type === "retrain.completed");
  // A retrain that led to no generation was not planned.
  const told = found.filter((each) => each.kind !== "planned" || built || !ended);
  told.sort((a, b) => a.at - b.at || ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind));
  return told.map((each, index) => ({ ...each, after: index ? each.at - told[index - 1].at : null }));
}

/** What the run waits for, or null. */
export function pending(run) {
  return ["waiting", "started", "decided", "retraining"].includes(run.state) ? run.state : null;
}

/** What the badge says: the verdict, unless there is none or the run failed. */
export function standing(run) {
  if (run.verdict) return run.verdict;
  return run.state === "failed" ? "failed" : "pending";
}

/** Why consumers gave up on events of the run. */
export function failures(steps) {
  return steps.filter((step) => step.what === "dead");
}
