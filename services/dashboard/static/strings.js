// Words and figures in the page's language.

const root = document.documentElement;
export const language = root.lang === "en" ? "en" : "ko";
export const zone = root.dataset.timezone;
export const threshold = Number(root.dataset.threshold);

const { default: WORDS } = await import(`./words.${language}.js`);

/** The wording of `key`; `{0}`, `{1}` are filled in. An unknown key gives `otherwise`. */
export function word(key, values = [], otherwise = key) {
  const text = WORDS[key] ?? otherwise;
  return text.replace(/\{(\d)\}/g, (_, index) => String(values[index] ?? ""));
}

// --- times ------------------------------------------------------------------------------------

const formats = new Map();

function format(name, options, tag = language) {
  if (!formats.has(name)) {
    try {
      formats.set(name, new Intl.DateTimeFormat(tag, { timeZone: zone, ...options }));
    } catch {
      const { timeZone, ...rest } = options; // a zone this browser does not know
      formats.set(name, new Intl.DateTimeFormat(tag, rest));
    }
  }
  return formats.get(name);
}

const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const DAY = { month: "short", day: "numeric", weekday: "short" };

export const dayAndTime = (iso) => format("dayAndTime", { ...DAY, ...CLOCK }).format(new Date(iso));
export const exactly = (iso) =>
  format("exactly", { dateStyle: "long", timeStyle: "long", hourCycle: "h23" }).format(new Date(iso));

/** A calendar day, given as YYYY-MM-DD. */
export const day = (iso) =>
  format("day", { month: "short", day: "numeric", timeZone: "UTC" }).format(new Date(`${iso}T00:00:00Z`));

/** Today in the loop's zone, as YYYY-MM-DD. */
export const today = () => format("today", { dateStyle: "short" }, "sv").format(new Date());

const UNITS =
  language === "ko" ? { s: "초", m: "분", h: "시간", d: "일" } : { s: " s", m: " min", h: " h", d: " d" };

export function duration(milliseconds) {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 9.95) return `${seconds.toFixed(1)}${UNITS.s}`;
  if (seconds < 60) return `${Math.round(seconds)}${UNITS.s}`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}${UNITS.m} ${Math.floor(seconds % 60)}${UNITS.s}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours}${UNITS.h} ${minutes % 60}${UNITS.m}`;
  return `${Math.floor(hours / 24)}${UNITS.d}`;
}

// --- figures ----------------------------------------------------------------------------------

const ONE = { minimumFractionDigits: 1, maximumFractionDigits: 1 };
const THREE = { minimumFractionDigits: 3, maximumFractionDigits: 3 };
const numbers = new Intl.NumberFormat(language);
const tenths = new Intl.NumberFormat(language, ONE);
const percents = new Intl.NumberFormat(language, { style: "percent", ...ONE });
const scores = new Intl.NumberFormat(language, THREE);
const changes = new Intl.NumberFormat(language, { ...THREE, signDisplay: "exceptZero" });

const none = (figure) => figure === null || figure === undefined;
// Half up, as the report rounds: a binary fraction may lie a hair below the half.
const rounded = (ratio) => Math.round(ratio * 1000 + 1e-9) / 1000;

export const count = (number) => (none(number) ? "–" : numbers.format(number));

/** A ratio with one decimal; where there is none, a dash. */
export const share = (ratio) => (none(ratio) ? "–" : percents.format(rounded(ratio)));

/** One decimal, half up, as the report has it; nobody voted: a dash. */
export const percent = (part, whole) => share(whole > 0 ? part / whole : null);

/** The ends of an interval of ratios. */
export const interval = (low, high) =>
  none(low) || none(high) ? "–" : `${tenths.format(rounded(low) * 100)}–${share(high)}`;

export const score = (number) => (none(number) ? "–" : scores.format(number));
export const change = (number) => (none(number) ? "–" : changes.format(number));
