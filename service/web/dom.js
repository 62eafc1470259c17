// Elements from names, attributes and children. Text only ever becomes text nodes: nothing here parses markup.

export const $ = (selector, within = document) => within.querySelector(selector);

export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

// A bar of the meaning and the words in a score, as wide as its share of the widest.
export function bar(parts, widest) {
  const pieces = Object.entries(parts).map(([part, value]) => {
    const piece = h("i", { class: part });
    piece.style.width = `${(100 * Math.max(value, 0)) / widest}%`;
    return piece;
  });
  return h("span", { class: "bar", "aria-hidden": "true" }, pieces);
}

export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
