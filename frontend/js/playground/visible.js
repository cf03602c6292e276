// What a model writes must not rearrange the page: signs that steer the direction of text, or that show
// nothing, are replaced by marks that everybody sees.

const STEERING = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const UNSEEN = /[\u200b\u2060-\u2064\ufeff]|[\u{e0000}-\u{e007f}]/gu;
const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;

const code = (sign) => `⟦U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟧`;

export function visible(text) {
  return text
    .replace(/\r\n?/g, "\n")
    .replace(STEERING, code)
    .replace(UNSEEN, code)
    .replace(CONTROLS, code);
}
