// Words and figures in the page's language. The verdicts are worded as in the report.

const root = document.documentElement;
export const language = root.lang === "en" ? "en" : "ko";
export const zone = root.dataset.timezone;
export const threshold = Number(root.dataset.threshold);

const WORDS = {
  ko: {
    skip: "실행 기록으로 건너뛰기",
    language: "언어",
    latest: "최근 리포트",
    runs: "실행 기록",
    building: "진행 중인 재임베딩",
    loading: "불러오는 중…",
    "link.connecting": "연결 중",
    "link.live": "실시간",
    "link.reconnecting": "다시 연결 중",
    "link.trouble": "DB 응답 없음",
    "link.waiting": "시작 중",
    "link.unreachable": "연결 안 됨",
    "link.polling": "10초마다 갱신",
    "notice.trouble": "데이터베이스가 응답하지 않습니다. 복구되면 저절로 이어집니다.",
    "notice.trouble.old":
      "데이터베이스가 응답하지 않습니다. 아래는 {0} 기준의 내용이며, 복구되면 저절로 이어집니다.",
    "notice.waiting": "서비스가 아직 시작하는 중입니다. 준비되면 저절로 나타납니다.",
    "notice.unreachable": "서버에 연결할 수 없습니다. 계속 다시 시도합니다.",
    "tile.ratio": "부정 비율",
    "tile.total": "총 피드백",
    "tile.likes": "좋아요",
    "tile.dislikes": "싫어요",
    "tile.threshold": "기준 {0}",
    "ratio.of": "부정 비율 {0}, 기준 {1}",
    "report.at": "{0} 기준",
    "report.none": "아직 판단된 실행이 없습니다.",
    "empty.title": "아직 실행이 없습니다",
    "empty.how": "첫 실행을 시작하면 여기에 바로 나타납니다. 터미널에서:",
    "empty.or": "또는 트리거의 주소를 호출하세요:",
    "verdict.ok": "정상 유지",
    "verdict.watch": "주의 관찰",
    "verdict.act": "재임베딩 시작",
    "verdict.insufficient_data": "표본 부족",
    "verdict.paused": "일시 중지",
    "verdict.failed": "처리 실패",
    "verdict.pending": "판단 전",
    "reason.no_votes": "판단할 피드백이 없습니다.",
    "reason.too_few_votes": "판단하기에는 피드백이 아직 부족합니다.",
    "reason.no_new_votes": "이전 피드백은 기준 이내이지만, 이번 기간에는 새 피드백이 없습니다.",
    "reason.within_threshold": "부정 비율이 기준을 넘지 않았습니다.",
    "reason.uncertain": "판단 기간의 비율은 기준을 넘었지만, 우연이 아니라고 하기에는 표본이 작습니다.",
    "reason.retrain_running": "기준을 넘었지만, 재임베딩이 이미 진행 중입니다.",
    "reason.cooling_down": "기준을 확실히 넘었지만, 지난 재임베딩 뒤의 관찰 기간입니다.",
    "reason.lower_bound_over_threshold":
      "판단 기간의 부정 비율이 기준을 확실히 넘어 재임베딩을 시작했습니다.",
    "reason.ratio_over_threshold": "부정 비율이 기준을 넘어 재임베딩을 시작했습니다.",
    "reason.breaker_open": "지난 재임베딩이 효과가 없어 멈췄습니다. 사람의 확인이 필요합니다.",
    "reason.paused": "사람이 재임베딩을 일시 중지했습니다.",
    "run.by": "{0} 실행",
    "run.by.unknown": "알 수 없음",
    "run.app": "앱 {0}",
    steps: "처리 과정",
    "step.triggered": "실행 요청",
    "step.evaluated": "판단",
    "step.retrain": "재임베딩 요청",
    "step.planned": "새 세대 계획",
    "step.built": "임베딩 완료",
    "step.outcome": "재임베딩 종료",
    "step.outcome.promoted": "새 세대 적용",
    "step.outcome.unchanged": "바뀐 것 없음",
    "step.outcome.rejected": "적용하지 않음",
    "step.outcome.superseded": "더 새로운 작업으로 대체",
    "step.outcome.failed": "재임베딩 실패",
    "step.rollback": "되돌리기 요청",
    "step.generation": "재임베딩 요청",
    "step.failure": "실패",
    "post.report": "리포트 전송",
    "post.start": "시작 알림",
    "post.retrain": "재임베딩 알림",
    "post.outcome": "결과 알림",
    "post.failed": "실패 알림",
    "post.other": "알림 ({0})",
    "to.slack": "Slack {0}",
    "to.terminal": "터미널",
    "to.webhook": "Slack",
    "pending.waiting": "전달 대기 중",
    "pending.started": "판단 중",
    "pending.decided": "리포트 전송 대기 중",
    "pending.retraining": "재임베딩 진행 중",
    "gave.up": "{0} 서비스가 {1} 처리를 포기했습니다: {2}",
    "gave.up.unknown": "이유를 알 수 없음",
    "build.title": "세대 {0}",
    "build.progress": "{0} / {1} 배치 · {2}",
    "build.chunks": "청크 {0}개",
    "build.feedback": "피드백",
    "build.documents": "문서 변경",
    "build.manual": "수동 요청",
    "said.started": "새 실행이 시작되었습니다: {0}",
    "said.decided": "{0} 실행의 판단: {1}",
    "said.failed": "{0} 실행이 실패했습니다",
    "said.retrained": "재임베딩 결과: {0}",
  },
  en: {
    skip: "Skip to the runs",
    language: "Language",
    latest: "Latest report",
    runs: "Runs",
    building: "Re-embedding under way",
    loading: "Loading…",
    "link.connecting": "Connecting",
    "link.live": "Live",
    "link.reconnecting": "Reconnecting",
    "link.trouble": "No database",
    "link.waiting": "Starting",
    "link.unreachable": "Not connected",
    "link.polling": "Every 10 s",
    "notice.trouble": "The database does not answer. The page goes on by itself once it is back.",
    "notice.trouble.old":
      "The database does not answer. This is how things stood at {0}; the page goes on by itself.",
    "notice.waiting": "The service is still starting. The page fills by itself once it is ready.",
    "notice.unreachable": "The server cannot be reached. Trying again.",
    "tile.ratio": "Negative ratio",
    "tile.total": "Total feedback",
    "tile.likes": "Likes",
    "tile.dislikes": "Dislikes",
    "tile.threshold": "Threshold {0}",
    "ratio.of": "Negative ratio {0}, threshold {1}",
    "report.at": "As of {0}",
    "report.none": "No run has a verdict yet.",
    "empty.title": "No run yet",
    "empty.how": "Start the first one, and it shows here at once. In a terminal:",
    "empty.or": "Or call the trigger's address:",
    "verdict.ok": "Normal",
    "verdict.watch": "Watching",
    "verdict.act": "Re-embedding started",
    "verdict.insufficient_data": "Too few votes",
    "verdict.paused": "Paused",
    "verdict.failed": "Failed",
    "verdict.pending": "Not judged yet",
    "reason.no_votes": "There is nothing to judge.",
    "reason.too_few_votes": "There are too few votes for a decision.",
    "reason.no_new_votes": "Earlier votes are within the threshold, but nobody voted in this period.",
    "reason.within_threshold": "The negative ratio is within the threshold.",
    "reason.uncertain": "In the window judged the ratio is over the threshold, but that may be chance.",
    "reason.retrain_running": "Over the threshold, but a re-embedding is under way already.",
    "reason.cooling_down": "Clearly over the threshold, but the last re-embedding is still being watched.",
    "reason.lower_bound_over_threshold":
      "In the window judged the ratio is clearly over the threshold: re-embedding has started.",
    "reason.ratio_over_threshold": "The negative ratio is over the threshold: re-embedding has started.",
    "reason.breaker_open": "The last re-embeddings did not help. A person must look.",
    "reason.paused": "A person has paused re-embedding.",
    "run.by": "by {0}",
    "run.by.unknown": "unknown",
    "run.app": "App {0}",
    steps: "What happened",
    "step.triggered": "Triggered",
    "step.evaluated": "Judged",
    "step.retrain": "Re-embedding requested",
    "step.planned": "New generation planned",
    "step.built": "Embedded",
    "step.outcome": "Re-embedding ended",
    "step.outcome.promoted": "New generation active",
    "step.outcome.unchanged": "Nothing to change",
    "step.outcome.rejected": "Not activated",
    "step.outcome.superseded": "Superseded by newer work",
    "step.outcome.failed": "Re-embedding failed",
    "step.rollback": "Rollback requested",
    "step.generation": "Re-embedding requested",
    "step.failure": "Failed",
    "post.report": "Report sent",
    "post.start": "Start notice sent",
    "post.retrain": "Re-embedding announced",
    "post.outcome": "Outcome announced",
    "post.failed": "Failure announced",
    "post.other": "Notice sent ({0})",
    "to.slack": "Slack {0}",
    "to.terminal": "terminal",
    "to.webhook": "Slack",
    "pending.waiting": "Waiting to be delivered",
    "pending.started": "Being judged",
    "pending.decided": "Report to be sent",
    "pending.retraining": "Re-embedding",
    "gave.up": "{0} gave up on {1}: {2}",
    "gave.up.unknown": "reason unknown",
    "build.title": "Generation {0}",
    "build.progress": "{0} of {1} batches · {2}",
    "build.chunks": "{0} chunks",
    "build.feedback": "feedback",
    "build.documents": "changed documents",
    "build.manual": "by hand",
    "said.started": "A new run has started: {0}",
    "said.decided": "Verdict of the run of {0}: {1}",
    "said.failed": "The run of {0} has failed",
    "said.retrained": "Outcome of the re-embedding: {0}",
  },
};

/** The wording of `key`; `{0}`, `{1}` are filled in. An unknown key gives `otherwise`. */
export function word(key, values = [], otherwise = key) {
  const text = WORDS[language][key] ?? otherwise;
  return text.replace(/\{(\d)\}/g, (_, index) => String(values[index] ?? ""));
}

const formats = new Map();

function format(name, options) {
  if (!formats.has(name)) {
    try {
      formats.set(name, new Intl.DateTimeFormat(language, { ...options, timeZone: zone }));
    } catch {
      formats.set(name, new Intl.DateTimeFormat(language, options)); // a zone this browser does not know
    }
  }
  return formats.get(name);
}

const CLOCK = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
const DAY = { month: "short", day: "numeric", weekday: "short" };

export const dayAndTime = (iso) => format("dayAndTime", { ...DAY, ...CLOCK }).format(new Date(iso));
export const exactly = (iso) =>
  format("exactly", { dateStyle: "long", timeStyle: "long", hourCycle: "h23" }).format(new Date(iso));

export const count = (number) => new Intl.NumberFormat(language).format(number);

/** One decimal, half up, as the report has it; nobody voted: a dash. */
export function percent(part, whole) {
  return whole > 0 ? `${(Math.round((part * 1000) / whole) / 10).toFixed(1)}%` : "–";
}

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
