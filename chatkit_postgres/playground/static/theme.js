// Light or dark, before anything is drawn; chosen by the system until somebody chooses.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (system.matches ? "dark" : "light");
  };
  system.addEventListener("change", apply);
  addEventListener("theme", apply);
  apply();
})();
