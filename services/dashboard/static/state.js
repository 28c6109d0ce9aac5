// What the page knows, fed by the stream. Steps are told apart by their ids, so hearing of one twice
// does no harm.

const MOST = 20;

export class State {
  constructor() {
    this.asOf = null; // when the page last heard of the database, in milliseconds of its own clock
    this.latest = null;
    this.runs = new Map();
    this.steps = new Map();
    this.builds = new Map();
  }

  /** Begin again from a snapshot. */
  replace(snapshot) {
    this.latest = snapshot.latest;
    this.runs = new Map(snapshot.runs.map(({ steps, ...run }) => [run.id, run]));
    this.steps = new Map(
      snapshot.runs.map((run) => [run.id, new Map(run.steps.map((step) => [step.id, step]))]),
    );
    this.builds = new Map(snapshot.builds.map((build) => [build.generation, build]));
  }

  /** Take a run's row. Returns the row it replaces, or undefined. */
  run(row) {
    const before = this.runs.get(row.id);
    this.runs.set(row.id, row);
    if (!this.steps.has(row.id)) this.steps.set(row.id, new Map());
    if (
      row.decided_at &&
      (!this.latest || row.id === this.latest.id || row.started_at >= this.latest.started_at)
    ) {
      this.latest = row;
    }
    for (const old of this.newestFirst().slice(MOST)) {
      this.runs.delete(old.id);
      this.steps.delete(old.id);
    }
    return before;
  }

  step(row) {
    this.steps.get(row.run)?.set(row.id, row);
  }

  progress(builds) {
    for (const build of builds) this.builds.set(build.generation, build);
  }

  newestFirst() {
    return [...this.runs.values()].sort(
      (a, b) => Date.parse(b.started_at) - Date.parse(a.started_at) || (a.id < b.id ? -1 : 1),
    );
  }

  stepsOf(run) {
    return [...(this.steps.get(run.id)?.values() ?? [])];
  }

  /** The latest build of a run, or undefined. */
  buildOf(run) {
    return [...this.builds.values()].filter((build) => build.run === run.id).at(-1);
  }

  /** Builds under way that belong to none of the runs shown. */
  otherBuilds() {
    return [...this.builds.values()].filter((build) => build.running && !this.runs.has(build.run));
  }
}
