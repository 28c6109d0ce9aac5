// <feedback-votes>: 👍 and 👎 for one answer; see README.md
{
const EN = "Rate this answer|Good answer|Bad answer|What was wrong?|Comment|Send|Wrong|Outdated|Incomplete|Off topic|Unclear|Thank you.|Taken back.|Not sent. Try again.|Not sent. Reload the page."
const KO = "답변 평가|좋아요|싫어요|무엇이 아쉬웠나요?|의견|보내기|틀렸어요|오래됐어요|부족해요|엉뚱해요|어려워요|고맙습니다.|취소했어요.|못 보냈어요. 다시 눌러 주세요.|못 보냈어요. 페이지를 새로 고쳐 주세요."
const CODES = ["wrong", "outdated", "incomplete", "irrelevant", "unclear"]
const make = (tag, set, ...inside) => {
	const made = Object.assign(document.createElement(tag), set)
	made.append(...inside)
	return made
}
const button = (name, ariaLabel, text, onclick) => make("button", { type: "button", name, ariaLabel, onclick }, text)
const press = (buttons, name) => buttons.map(it => it.ariaPressed = it.name == name)

customElements.define("feedback-votes", class extends HTMLElement { connectedCallback() {
	if (this.role) return // moved, not made
	const [group, good, bad, why, comment, submit, ...say] = (this.matches(":lang(ko)") ? KO : EN).split("|")
	let known = this.dataset.vote, shown, reason, last

	const show = value => {
		press(thumbs, shown = value)
		form.hidden = value != "dislike"
		press(chips, form.hidden || reason)
	}
	// In order: the last one pressed counts.
	const send = (feedback, more) => {
		const turn = last = (async before => {
			state.textContent = ""
			await before
			const { url, token, conversation, message, user, app } = this.dataset
			let status
			try {
				status = (await fetch(url + "/feedback", {
					method: "POST",
					headers: { "Content-Type": "application/json", ...token && { Authorization: "Bearer " + token } },
					body: JSON.stringify({ conversation_id: conversation, message_id: message, user_id: user, app, feedback, ...more }),
					signal: AbortSignal.timeout(9e4),
				})).status
			} catch {}
			if (status == 200) {
				reason = more?.reason_code || known == feedback && reason
				known = feedback
			}
			state.textContent = say[status == 200 ? 5 + !feedback : status == 401 ? 8 : 7]
			if (turn == last) show(known)
		})(last)
	}
	const vote = event => {
		const { name } = event.currentTarget
		show(shown == name ? null : name)
		send(shown)
	}
	const thumbs = [button("like", good, "👍", vote), button("dislike", bad, "👎", vote)]
	const chips = CODES.map((name, n) => button(name, say[n], say[n], () => {
		press(chips, name)
		send("dislike", { reason_code: name })
	}))
	const input = make("input", { maxLength: 4000 })
	const form = make("form", { onsubmit: event => {
		event.preventDefault()
		send("dislike", { comment: input.value })
	} }, make("fieldset", {}, make("legend", {}, why), ...chips), make("label", {}, comment, " ", input), make("button", {}, submit))
	const state = make("span", { role: "status" })
	Object.assign(this, { role: "group", ariaLabel: group }).append(...thumbs, state, form)
	show(known)
} })
}
