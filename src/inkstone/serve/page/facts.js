// What is known about a text that a model wrote, as one quiet line: how fast, how long, why it ended.
import { number, seconds, t } from "./i18n.js";

const ENDS = { stop: "endedItself", length: "endedLength" };

// The parts of the line, as strings; those that are not known are left out.
export function factParts(facts) {
  const parts = [];
  if (Number.isFinite(facts.tokensPerSecond)) parts.push(t("speed", { value: number(facts.tokensPerSecond, { maximumSignificantDigits: 3 }) }));
  if (Number.isFinite(facts.firstTokenSeconds)) parts.push(t("firstToken", { time: seconds(facts.firstTokenSeconds) }));
  if (Number.isFinite(facts.completionTokens)) parts.push(t("tokens", { count: facts.completionTokens }));
  if (facts.state === "stopped") parts.push(t("endedStopped"));
  else if (facts.state === "done" && facts.finish in ENDS) parts.push(t(ENDS[facts.finish]));
  if (Number.isFinite(facts.seed)) parts.push(t("seedWas", { seed: String(facts.seed) }));
  if (facts.model) parts.push(facts.model);
  return parts;
}

// The sentence for a failure: what happened, and what the server said about it.
export function problemText(problem, detail, isPartial) {
  const what = t(`problem_${problem}`);
  const said = detail ? ` ${t("serverSaid", { text: detail.slice(0, 400) })}` : "";
  return `${what}${said}${isPartial ? ` ${t("textKept")}` : ""}`;
}
