"use strict";
const $ = (id) => document.getElementById(id);
const { title } = document;
const data = JSON.parse($("data").textContent);
const { compare } = new Intl.Collator(undefined, { numeric: true });

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children); // strings become text, never markup
  return element;
}

// The colours of heat, as the tables of a filter's three functions.
function heat(functions) {
  functions.forEach((element, channel) => {
    element.setAttribute("tableValues", data.heat.map((color) => color[channel] / 255).join(" "));
  });
}
