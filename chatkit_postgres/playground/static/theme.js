// Sets the light or dark theme before anything is drawn: the system's, unless the user has chosen one.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (system.matches ? "dark" : "light");
  };
  system.addEventListener("change", apply);
  addEventListener("theme", apply);
  apply();
})();
