// Runs before the first paint, so that nobody who chose dark sees a white flash. The choice is kept only while it differs
// from the system's: who follows the system goes on following it.

const dark = matchMedia("(prefers-color-scheme: dark)");
const system = () => (dark.matches ? "dark" : "light");

paint(localStorage.getItem("theme") ?? system());
dark.addEventListener("change", () => paint(localStorage.getItem("theme") ?? system()));

document.addEventListener("DOMContentLoaded", () => {
  document.querySelector("#theme").addEventListener("click", () => {
    const chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    if (chosen === system()) localStorage.removeItem("theme");
    else localStorage.setItem("theme", chosen);
    paint(chosen);
  });
  paint(document.documentElement.dataset.theme);
});

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  document.querySelector("#theme")?.setAttribute("aria-pressed", theme === "dark");
}
