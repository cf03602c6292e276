import { begin } from "../floor/page.js";

const root = document.getElementById("floor");
if (root) begin(root);
