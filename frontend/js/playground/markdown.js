// A model's Markdown as nodes. Its HTML is text, its images are not loaded, its links say where they lead,
// and nothing of it carries a style or a script.

import DOMPurify from "dompurify";
import hljs from "highlight.js/lib/common";
import MarkdownIt from "markdown-it";

import { visible } from "./visible.js";

// Colouring is for reading: what nobody reads to its end is shown plain.
const MAX_COLOURED = 20000;
const SAFE_LINK = /^(https?:|mailto:)/i;

const markdown = new MarkdownIt({ html: false, linkify: false, breaks: true, typographer: false });
markdown.disable("image");
markdown.validateLink = (url) => SAFE_LINK.test(url.trim());

// Alignment of table cells as a class: style attributes are forbidden by the page's policy.
markdown.core.ruler.push("classes", (state) => {
  for (const token of state.tokens) {
    const style = token.attrGet?.("style");
    if (!style) continue;
    token.attrs = token.attrs.filter(([name]) => name !== "style");
    const side = /text-align:\s*(right|center)/.exec(style)?.[1];
    if (side) token.attrJoin("class", `pg-${side}`);
  }
});

const PURE = {
  ALLOWED_TAGS: ["p", "br", "hr", "strong", "em", "s", "del", "code", "pre", "blockquote", "ul", "ol", "li", "a",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "span"],
  ALLOWED_ATTR: ["href", "class", "start"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const OWN_CLASS = /^(?:pg-right|pg-center|language-[\w+#.-]{1,30})$/;

let codes = 0;

// The nodes of a piece of Markdown. decorate: code blocks get colours and a copy button.
export function nodes(text, { decorate, texts }) {
  const fragment = DOMPurify.sanitize(markdown.render(text), PURE);
  showSigns(fragment);
  for (const element of fragment.querySelectorAll("[class]")) {
    const kept = [...element.classList].filter((name) => OWN_CLASS.test(name));
    element.removeAttribute("class");
    if (kept.length) element.classList.add(...kept);
  }
  for (const link of fragment.querySelectorAll("a")) showTarget(link);
  for (const table of fragment.querySelectorAll("table")) {
    table.classList.add("table");
    const wrap = document.createElement("div");
    wrap.className = "table-wrap";
    table.replaceWith(wrap);
    wrap.append(table);
  }
  // Headings of an answer are no headings of the page.
  for (const heading of fragment.querySelectorAll("h1, h2, h3, h4, h5, h6")) {
    const line = document.createElement("p");
    line.className = `pg-heading pg-heading-${heading.localName[1]}`;
    line.append(...heading.childNodes);
    heading.replaceWith(line);
  }
  for (const pre of fragment.querySelectorAll("pre")) codeBlock(pre, decorate, texts);
  return fragment;
}

// Markdown spells signs as entities too, and links with percents: only what came of it can be looked through.
function showSigns(fragment) {
  const texts = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const { data } = texts.currentNode;
    const shown = visible(data);
    if (shown !== data) texts.currentNode.data = shown;
  }
}

function showTarget(link) {
  link.rel = "noopener noreferrer nofollow ugc";
  link.target = "_blank";
  // What stands before an @ looks like the host, and is not.
  if (link.username || link.textContent.trim() !== link.getAttribute("href")) {
    const target = document.createElement("span");
    target.className = "pg-target";
    let shown = link.protocol;
    try {
      shown = link.host || link.href;
    } catch {
      // A link that cannot be read keeps its protocol.
    }
    target.textContent = ` (${shown})`;
    link.append(target);
  }
}

function codeBlock(pre, decorate, texts) {
  const code = pre.querySelector("code") ?? pre;
  const language = [...code.classList].find((name) => name.startsWith("language-"))?.slice(9) ?? "";
  const box = document.createElement("div");
  box.className = "code";
  const head = document.createElement("div");
  head.className = "code-head";
  const label = document.createElement("span");
  label.textContent = language || texts.code;
  head.append(label);
  code.id = `pg-block-${++codes}`;
  if (decorate) {
    const copy = document.createElement("button");
    copy.type = "button";
    copy.className = "button button-quiet button-small";
    copy.dataset.copy = `#${code.id}`;
    copy.textContent = texts.copy;
    head.append(copy);
    colour(code, language);
  }
  pre.tabIndex = 0;
  pre.replaceWith(box);
  box.append(head, pre);
}

function colour(code, language) {
  if (!language || !hljs.getLanguage(language) || code.textContent.length > MAX_COLOURED) return;
  const html = hljs.highlight(code.textContent, { language, ignoreIllegals: true }).value;
  const coloured = DOMPurify.sanitize(html, { ...PURE, ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"] });
  code.replaceChildren(coloured);
}
