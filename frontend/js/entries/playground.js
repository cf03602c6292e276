import { begin } from "../playground/page.js";

const root = document.getElementById("playground");
if (root) begin(root);
